"""Where gRPC meets trio: methods, serving, calling, credentials, errors and status.

Everything of grpcio is used through this package. Handlers are plain trio functions.
"""
