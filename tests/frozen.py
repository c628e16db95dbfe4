"""The commit whose store formats are version 1: from then on they are only added to."""

STORE_FORMATS = "57c9d70f6a8b9c2feb61dccf0433cd3514de5d72"
