"""Authorisation: which role may do what, the same at every door."""
