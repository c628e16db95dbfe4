"""Processes of ours that look at foreign bytes or secrets: how they start, what they may do."""
