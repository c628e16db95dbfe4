"""What commands have in common: how they show things, and how they end."""
