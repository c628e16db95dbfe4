"""How many connections there can be, beside the files that a node needs."""

import resource
from collections.abc import Iterable

_ENOUGH = 65_536
_FOR_FILES = 256
_BOUND = "grpc.max_allowed_incoming_connections"


def raise_limit() -> None:
    """Let this process have as many descriptors as it can use, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _ENOUGH)), hard))


def fitted(options: Iterable[tuple[str, int]], share: float) -> list[tuple[str, int]]:
    """Return a server's options with no more connections than a share of the descriptors.

    Where connections take the last descriptor, the store fails, and with it the node.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int((soft - _FOR_FILES) * share), 16)
    return [(name, min(value, most) if name == _BOUND else value) for name, value in options]
