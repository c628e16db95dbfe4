"""The node as a program: its home, its settings, and the composition of its parts."""
