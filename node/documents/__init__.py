"""Signed documents: encode, sign, verify; exact bytes and no I/O.

What a node states about itself (`identity`), what a package holds (`manifest`), a sender's
promise (`delivery`), the receiver's word (`receipt`), and the three together as an offline
proof (`proof`).
"""
