"""What stands between the node and the operating system: its clock, files, paths, processes."""
