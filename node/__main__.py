"""`python -m node` and the `emix` command."""

import os

# gRPC's core writes lines of its own, addresses in them, between ours. Set before it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from node.cli.main import main

if __name__ == "__main__":
    main()
