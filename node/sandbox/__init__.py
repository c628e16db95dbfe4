"""Child processes that handle foreign bytes or secrets: how they start, and what they may do."""
