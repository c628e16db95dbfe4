"""What a node asks of its networks' directories, and the lists that they sign."""
