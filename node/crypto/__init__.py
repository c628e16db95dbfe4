"""All cryptography: digests, sealing, signing, keys, certificates.

PyNaCl, blake3 and cryptography are imported here and nowhere else. Nothing here does I/O
except `node.crypto.argon2`, which starts a short-lived child.
"""
