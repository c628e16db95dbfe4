"""Clients of the directories of this node's networks, and the lists that they show."""
