"""gRPC's channel arguments that every client of ours sets."""

CLIENT_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # a proxy from the environment would divert us
    ("grpc.max_send_message_length", 4 * 2**20),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 500),
)
