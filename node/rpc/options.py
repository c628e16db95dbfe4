"""gRPC's channel arguments that clients and servers share."""

from collections.abc import Iterable

Option = tuple[str, int | str]

PING_MILLISECONDS = 45_000
"""Within which the other end answers a ping.

The answer waits behind what the line's buffers hold, gRPC's own probing included: with 20 seconds a
line of 1 Mbit/s was given up again and again, and no transfer ended.
"""

# Every client of ours sets these.
CLIENT_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # a proxy from the environment would divert us
    ("grpc.max_send_message_length", 4 * 2**20),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 500),
)


def merged(*options: Iterable[Option]) -> list[Option]:
    """Return options with each name once, the last value of it: of two gRPC takes the first."""
    return list({name: (name, value) for some in options for name, value in some}.values())
