from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetNetworkRequest(_message.Message):
    __slots__ = ("known_list", "membership")
    KNOWN_LIST_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    known_list: bytes
    membership: bytes
    def __init__(self, known_list: _Optional[bytes] = ..., membership: _Optional[bytes] = ...) -> None: ...

class GetNetworkResponse(_message.Message):
    __slots__ = ("network_key", "name", "list", "time_milliseconds", "list_change", "list_is_known", "challenge", "list_epoch", "list_number")
    NETWORK_KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    TIME_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    LIST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    LIST_IS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    LIST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    network_key: bytes
    name: str
    list: bytes
    time_milliseconds: int
    list_change: bytes
    list_is_known: bool
    challenge: bytes
    list_epoch: int
    list_number: int
    def __init__(self, network_key: _Optional[bytes] = ..., name: _Optional[str] = ..., list: _Optional[bytes] = ..., time_milliseconds: _Optional[int] = ..., list_change: _Optional[bytes] = ..., list_is_known: _Optional[bool] = ..., challenge: _Optional[bytes] = ..., list_epoch: _Optional[int] = ..., list_number: _Optional[int] = ...) -> None: ...

class GetChallengeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetChallengeResponse(_message.Message):
    __slots__ = ("challenge",)
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    challenge: bytes
    def __init__(self, challenge: _Optional[bytes] = ...) -> None: ...

class LoginProof(_message.Message):
    __slots__ = ("challenge", "root_digest")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    ROOT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    challenge: bytes
    root_digest: bytes
    def __init__(self, challenge: _Optional[bytes] = ..., root_digest: _Optional[bytes] = ...) -> None: ...

class LoginRequest(_message.Message):
    __slots__ = ("statements", "proof", "signature", "listing_digest")
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    LISTING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    statements: bytes
    proof: bytes
    signature: bytes
    listing_digest: bytes
    def __init__(self, statements: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., listing_digest: _Optional[bytes] = ...) -> None: ...

class LoginResponse(_message.Message):
    __slots__ = ("session", "lifetime_seconds", "again_seconds", "time_milliseconds")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AGAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIME_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    session: str
    lifetime_seconds: int
    again_seconds: int
    time_milliseconds: int
    def __init__(self, session: _Optional[str] = ..., lifetime_seconds: _Optional[int] = ..., again_seconds: _Optional[int] = ..., time_milliseconds: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("membership", "login")
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    membership: bytes
    login: LoginRequest
    def __init__(self, membership: _Optional[bytes] = ..., login: _Optional[_Union[LoginRequest, _Mapping]] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnnounceRequest(_message.Message):
    __slots__ = ("statements", "listing")
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    LISTING_FIELD_NUMBER: _ClassVar[int]
    statements: bytes
    listing: bytes
    def __init__(self, statements: _Optional[bytes] = ..., listing: _Optional[bytes] = ...) -> None: ...

class AnnounceResponse(_message.Message):
    __slots__ = ("again_seconds",)
    AGAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    again_seconds: int
    def __init__(self, again_seconds: _Optional[int] = ...) -> None: ...

class NodeRecord(_message.Message):
    __slots__ = ("statements", "listing", "membership", "online")
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    LISTING_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    statements: bytes
    listing: bytes
    membership: bytes
    online: bool
    def __init__(self, statements: _Optional[bytes] = ..., listing: _Optional[bytes] = ..., membership: _Optional[bytes] = ..., online: _Optional[bool] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("facility_ids",)
    FACILITY_IDS_FIELD_NUMBER: _ClassVar[int]
    facility_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, facility_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[NodeRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[NodeRecord, _Mapping]]] = ...) -> None: ...

class FindRequest(_message.Message):
    __slots__ = ("words", "limit")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    words: str
    limit: int
    def __init__(self, words: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class FindResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[NodeRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[NodeRecord, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("facility_ids", "known_list")
    FACILITY_IDS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_LIST_FIELD_NUMBER: _ClassVar[int]
    facility_ids: _containers.RepeatedScalarFieldContainer[bytes]
    known_list: bytes
    def __init__(self, facility_ids: _Optional[_Iterable[bytes]] = ..., known_list: _Optional[bytes] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("list", "record", "dial_back", "move", "ticket", "list_change")
    LIST_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    DIAL_BACK_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    LIST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    list: bytes
    record: NodeRecord
    dial_back: bytes
    move: Move
    ticket: bytes
    list_change: bytes
    def __init__(self, list: _Optional[bytes] = ..., record: _Optional[_Union[NodeRecord, _Mapping]] = ..., dial_back: _Optional[bytes] = ..., move: _Optional[_Union[Move, _Mapping]] = ..., ticket: _Optional[bytes] = ..., list_change: _Optional[bytes] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("within_seconds",)
    WITHIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    within_seconds: int
    def __init__(self, within_seconds: _Optional[int] = ...) -> None: ...

class AskDialBackRequest(_message.Message):
    __slots__ = ("facility_id",)
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    facility_id: bytes
    def __init__(self, facility_id: _Optional[bytes] = ...) -> None: ...

class AskDialBackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AskTicketRequest(_message.Message):
    __slots__ = ("facility_id", "relays", "avoid")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    AVOID_FIELD_NUMBER: _ClassVar[int]
    facility_id: bytes
    relays: _containers.RepeatedScalarFieldContainer[str]
    avoid: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, facility_id: _Optional[bytes] = ..., relays: _Optional[_Iterable[str]] = ..., avoid: _Optional[_Iterable[str]] = ...) -> None: ...

class AskTicketResponse(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: bytes
    def __init__(self, ticket: _Optional[bytes] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("list",)
    LIST_FIELD_NUMBER: _ClassVar[int]
    list: bytes
    def __init__(self, list: _Optional[bytes] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListMembershipsRequest(_message.Message):
    __slots__ = ("proof", "signature", "list_key_cert")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    LIST_KEY_CERT_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    signature: bytes
    list_key_cert: bytes
    def __init__(self, proof: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., list_key_cert: _Optional[bytes] = ...) -> None: ...

class ListMembershipsResponse(_message.Message):
    __slots__ = ("membership", "list")
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    membership: bytes
    list: bytes
    def __init__(self, membership: _Optional[bytes] = ..., list: _Optional[bytes] = ...) -> None: ...
