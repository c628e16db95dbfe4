"""`python -m directory_service` and the `emix-directory` command."""

import os

# gRPC's core writes lines of its own, addresses in them, between ours. Set before it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from directory_service.cli import main

if __name__ == "__main__":
    main()
