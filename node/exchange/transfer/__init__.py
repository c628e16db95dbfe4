"""Transfers between facilities: offers, the sender's and receiver's machines, verification."""
