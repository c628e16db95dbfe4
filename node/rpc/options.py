"""gRPC's channel arguments that clients and servers share."""

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
