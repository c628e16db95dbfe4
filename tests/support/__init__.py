"""What tests and benchmarks share: real nodes, files, attackers, clocks."""
