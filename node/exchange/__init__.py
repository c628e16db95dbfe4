"""The use cases: imports, packages, transfers, receipts; rules and state machines.

This package imports no gRPC, SQL or DICOM library. Small Protocols declare what it needs of the
store, the parsers and the network.
"""
