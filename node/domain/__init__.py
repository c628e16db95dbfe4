"""Values of the exchange, with no I/O and nothing but the standard library."""
