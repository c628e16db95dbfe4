"""The node as a program: its home, its settings, and the one place that joins the parts."""
