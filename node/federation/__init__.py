"""Peers on the wire: server, client, introduction, trust, supervision.

Authenticates the other end and decides whether it is trusted; the use cases are in
`node.exchange`.
"""
