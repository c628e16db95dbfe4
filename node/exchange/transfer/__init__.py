"""How packages go from facility to facility: offers, both machines, verification."""
