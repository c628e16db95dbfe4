"""Export: reads instances from the store, in any order or as a stream."""
