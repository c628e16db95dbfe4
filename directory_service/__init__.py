"""The directory service of a regional network: identity, discovery, relay; no patient data.

Its place is kept here; the service itself is not written yet.
"""
