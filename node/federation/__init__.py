"""Peers on the wire: server, client, introduction, trust, supervision.

Decides who is at the other end and whether it may be; what is done then, `node.exchange` does.
"""
