"""The encrypted local store: chunks, packing, envelopes, repositories, sweep."""
