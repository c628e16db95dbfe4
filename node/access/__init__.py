"""Who may do what, the same for every door."""
