"""`python -m node` and the `emix` command."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # The folder that `-m` was run in: it may be anybody's, and hold files called like libraries.
    sys.path.pop(0)

# gRPC's core writes lines of its own, addresses in them, between ours. Set before it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from node.terminal.libraries import load_anywhere

load_anywhere()

from node.cli.main import main  # noqa: E402  # it loads them

if __name__ == "__main__":
    main()
