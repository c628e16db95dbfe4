"""What this software calls itself."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("emix")
except PackageNotFoundError:  # run from a tree that was never installed
    VERSION = "0"

SOFTWARE = f"emix/{VERSION}"
