"""What is written outside of the home: exports in the clear, and copies of the node."""
