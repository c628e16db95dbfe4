"""`python -m node` and the `emix` command."""

from node.cli.main import main

if __name__ == "__main__":
    main()
