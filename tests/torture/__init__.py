"""Long sweeps: `make torture` runs them and writes docs/reliability.md."""
