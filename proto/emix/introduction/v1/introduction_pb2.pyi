from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatementsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatementsResponse(_message.Message):
    __slots__ = ("statements",)
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    statements: bytes
    def __init__(self, statements: _Optional[bytes] = ...) -> None: ...

class PresentRequest(_message.Message):
    __slots__ = ("statements", "memberships")
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIPS_FIELD_NUMBER: _ClassVar[int]
    statements: bytes
    memberships: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, statements: _Optional[bytes] = ..., memberships: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PresentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeginStringRequest(_message.Message):
    __slots__ = ("commitment",)
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    commitment: bytes
    def __init__(self, commitment: _Optional[bytes] = ...) -> None: ...

class BeginStringResponse(_message.Message):
    __slots__ = ("attempt", "nonce", "statements")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    attempt: bytes
    nonce: bytes
    statements: bytes
    def __init__(self, attempt: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., statements: _Optional[bytes] = ...) -> None: ...

class OpenStringRequest(_message.Message):
    __slots__ = ("attempt", "nonce", "statements")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    attempt: bytes
    nonce: bytes
    statements: bytes
    def __init__(self, attempt: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., statements: _Optional[bytes] = ...) -> None: ...

class OpenStringResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
