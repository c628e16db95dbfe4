"""Signed documents: encode, sign, verify; exact bytes and no I/O.

A node's statements about itself (`identity`), the content of a package (`manifest`), a sender's
promise (`delivery`), the receiver's confirmation (`receipt`); the last three together are an
offline proof (`receipt.Proof`).
"""
