"""The `emix` command: a client of the admin services; `init` and `serve` call the node itself."""
