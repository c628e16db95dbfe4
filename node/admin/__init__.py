"""The admin services: gRPC on a Unix socket, for the `emix` command and for stock tools."""
