"""Export: instances leave the store, in order."""
