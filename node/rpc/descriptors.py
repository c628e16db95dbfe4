"""How many connections fit into the limit on file descriptors, beside a node's own files."""

import resource
from collections.abc import Iterable

_MOST = 1 << 20  # where a container has no limit, a child would close a billion descriptors
_FOR_FILES = 256
_OF_SPLICED = 7  # two sockets of ours, gRPC's, and a pipe for each direction
_LEAST_SPLICED = 4
_BOUND = "grpc.max_allowed_incoming_connections"


def raise_limit() -> None:
    """Let this process have as many descriptors as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def fitted(options: Iterable[tuple[str, int]], share: float) -> list[tuple[str, int]]:
    """Return a server's options with no more connections than a share of the descriptors.

    Where connections take the last descriptor, the store fails, and with it the node.
    """
    most = max(int(_for_connections() * share), 16)
    return [(name, min(value, most) if name == _BOUND else value) for name, value in options]


def spliced(most: int, share: float) -> int:
    """Return how many connections may be spliced to gRPC's with a share of the descriptors."""
    return max(min(most, int(_for_connections() * share / _OF_SPLICED)), _LEAST_SPLICED)


def _for_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - _FOR_FILES
