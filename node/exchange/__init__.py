"""The use cases: imports, packages, transfers, receipts; rules and state machines.

Knows no gRPC, SQL or DICOM library. What it needs of the store, the parsers and the network
it declares as small Protocols.
"""
