from emix.documents.v1 import documents_pb2 as _documents_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnswerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_KIND_UNSPECIFIED: _ClassVar[AnswerKind]
    ANSWER_KIND_ACCEPTED: _ClassVar[AnswerKind]
    ANSWER_KIND_HELD: _ClassVar[AnswerKind]
    ANSWER_KIND_LATER: _ClassVar[AnswerKind]
    ANSWER_KIND_DECLINED: _ClassVar[AnswerKind]
ANSWER_KIND_UNSPECIFIED: AnswerKind
ANSWER_KIND_ACCEPTED: AnswerKind
ANSWER_KIND_HELD: AnswerKind
ANSWER_KIND_LATER: AnswerKind
ANSWER_KIND_DECLINED: AnswerKind

class KnownList(_message.Message):
    __slots__ = ("network_id", "number", "epoch")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    network_id: bytes
    number: int
    epoch: int
    def __init__(self, network_id: _Optional[bytes] = ..., number: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class GivenHead(_message.Message):
    __slots__ = ("head", "after_sequence", "links")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    after_sequence: int
    links: bytes
    def __init__(self, head: _Optional[bytes] = ..., after_sequence: _Optional[int] = ..., links: _Optional[bytes] = ...) -> None: ...

class KeptHead(_message.Message):
    __slots__ = ("head", "taken_milliseconds", "contradicted")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    TAKEN_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    CONTRADICTED_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    taken_milliseconds: int
    contradicted: bool
    def __init__(self, head: _Optional[bytes] = ..., taken_milliseconds: _Optional[int] = ..., contradicted: _Optional[bool] = ...) -> None: ...

class Deletion(_message.Message):
    __slots__ = ("transfer_id", "deleted_milliseconds")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    DELETED_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    transfer_id: bytes
    deleted_milliseconds: int
    def __init__(self, transfer_id: _Optional[bytes] = ..., deleted_milliseconds: _Optional[int] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("min_version", "max_version", "time_milliseconds", "software", "statements", "lists", "audit_head", "kept_heads", "deletions", "confirmed_deletions", "capabilities")
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_HEAD_FIELD_NUMBER: _ClassVar[int]
    KEPT_HEADS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_DELETIONS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    min_version: int
    max_version: int
    time_milliseconds: int
    software: str
    statements: bytes
    lists: _containers.RepeatedCompositeFieldContainer[KnownList]
    audit_head: GivenHead
    kept_heads: _containers.RepeatedCompositeFieldContainer[KeptHead]
    deletions: _containers.RepeatedCompositeFieldContainer[Deletion]
    confirmed_deletions: _containers.RepeatedScalarFieldContainer[bytes]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, min_version: _Optional[int] = ..., max_version: _Optional[int] = ..., time_milliseconds: _Optional[int] = ..., software: _Optional[str] = ..., statements: _Optional[bytes] = ..., lists: _Optional[_Iterable[_Union[KnownList, _Mapping]]] = ..., audit_head: _Optional[_Union[GivenHead, _Mapping]] = ..., kept_heads: _Optional[_Iterable[_Union[KeptHead, _Mapping]]] = ..., deletions: _Optional[_Iterable[_Union[Deletion, _Mapping]]] = ..., confirmed_deletions: _Optional[_Iterable[bytes]] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ("version", "time_milliseconds", "software", "statements", "lists", "audit_head", "kept_heads", "deletions", "confirmed_deletions", "capabilities")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_HEAD_FIELD_NUMBER: _ClassVar[int]
    KEPT_HEADS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_DELETIONS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    version: int
    time_milliseconds: int
    software: str
    statements: bytes
    lists: _containers.RepeatedCompositeFieldContainer[KnownList]
    audit_head: GivenHead
    kept_heads: _containers.RepeatedCompositeFieldContainer[KeptHead]
    deletions: _containers.RepeatedCompositeFieldContainer[Deletion]
    confirmed_deletions: _containers.RepeatedScalarFieldContainer[bytes]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., time_milliseconds: _Optional[int] = ..., software: _Optional[str] = ..., statements: _Optional[bytes] = ..., lists: _Optional[_Iterable[_Union[KnownList, _Mapping]]] = ..., audit_head: _Optional[_Union[GivenHead, _Mapping]] = ..., kept_heads: _Optional[_Iterable[_Union[KeptHead, _Mapping]]] = ..., deletions: _Optional[_Iterable[_Union[Deletion, _Mapping]]] = ..., confirmed_deletions: _Optional[_Iterable[bytes]] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class GetListRequest(_message.Message):
    __slots__ = ("network_id",)
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    network_id: bytes
    def __init__(self, network_id: _Optional[bytes] = ...) -> None: ...

class GetListResponse(_message.Message):
    __slots__ = ("list",)
    LIST_FIELD_NUMBER: _ClassVar[int]
    list: bytes
    def __init__(self, list: _Optional[bytes] = ...) -> None: ...

class GiveListRequest(_message.Message):
    __slots__ = ("network_id", "list")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    network_id: bytes
    list: bytes
    def __init__(self, network_id: _Optional[bytes] = ..., list: _Optional[bytes] = ...) -> None: ...

class GiveListResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAuditHeadsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAuditHeadsResponse(_message.Message):
    __slots__ = ("kept_heads",)
    KEPT_HEADS_FIELD_NUMBER: _ClassVar[int]
    kept_heads: _containers.RepeatedCompositeFieldContainer[KeptHead]
    def __init__(self, kept_heads: _Optional[_Iterable[_Union[KeptHead, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("transfer_id", "decided_transfer_id")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    DECIDED_TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    transfer_id: bytes
    decided_transfer_id: bytes
    def __init__(self, transfer_id: _Optional[bytes] = ..., decided_transfer_id: _Optional[bytes] = ...) -> None: ...

class CarryRequest(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: CarryMessage
    def __init__(self, message: _Optional[_Union[CarryMessage, _Mapping]] = ...) -> None: ...

class CarryResponse(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: CarryMessage
    def __init__(self, message: _Optional[_Union[CarryMessage, _Mapping]] = ...) -> None: ...

class CarryMessage(_message.Message):
    __slots__ = ("collect", "offer", "answer", "manifest_frame", "want", "chunk_frame", "progress", "receipt", "receipt_kept", "problem", "heartbeat", "withdraw")
    COLLECT_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FRAME_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FRAME_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_KEPT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    collect: Collect
    offer: Offer
    answer: Answer
    manifest_frame: ManifestFrame
    want: Want
    chunk_frame: ChunkFrame
    progress: Progress
    receipt: ReceiptMessage
    receipt_kept: ReceiptKept
    problem: Problem
    heartbeat: Heartbeat
    withdraw: Withdraw
    def __init__(self, collect: _Optional[_Union[Collect, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., manifest_frame: _Optional[_Union[ManifestFrame, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., chunk_frame: _Optional[_Union[ChunkFrame, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., receipt: _Optional[_Union[ReceiptMessage, _Mapping]] = ..., receipt_kept: _Optional[_Union[ReceiptKept, _Mapping]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ...) -> None: ...

class Collect(_message.Message):
    __slots__ = ("transfer_id",)
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    transfer_id: bytes
    def __init__(self, transfer_id: _Optional[bytes] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("delivery", "sealed_key", "manifest", "further_streams", "further")
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    SEALED_KEY_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    FURTHER_STREAMS_FIELD_NUMBER: _ClassVar[int]
    FURTHER_FIELD_NUMBER: _ClassVar[int]
    delivery: _documents_pb2.Document
    sealed_key: bytes
    manifest: _documents_pb2.Document
    further_streams: int
    further: bool
    def __init__(self, delivery: _Optional[_Union[_documents_pb2.Document, _Mapping]] = ..., sealed_key: _Optional[bytes] = ..., manifest: _Optional[_Union[_documents_pb2.Document, _Mapping]] = ..., further_streams: _Optional[int] = ..., further: _Optional[bool] = ...) -> None: ...

class Withdraw(_message.Message):
    __slots__ = ("transfer_id",)
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    transfer_id: bytes
    def __init__(self, transfer_id: _Optional[bytes] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("kind", "retry_seconds", "reason", "manifest_needed")
    KIND_FIELD_NUMBER: _ClassVar[int]
    RETRY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_NEEDED_FIELD_NUMBER: _ClassVar[int]
    kind: AnswerKind
    retry_seconds: int
    reason: str
    manifest_needed: bool
    def __init__(self, kind: _Optional[_Union[AnswerKind, str]] = ..., retry_seconds: _Optional[int] = ..., reason: _Optional[str] = ..., manifest_needed: _Optional[bool] = ...) -> None: ...

class ManifestFrame(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("chunk_ids",)
    CHUNK_IDS_FIELD_NUMBER: _ClassVar[int]
    chunk_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, chunk_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ChunkFrame(_message.Message):
    __slots__ = ("chunk_id", "data")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    chunk_id: bytes
    data: bytes
    def __init__(self, chunk_id: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("durable_bytes", "total_bytes")
    DURABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    durable_bytes: int
    total_bytes: int
    def __init__(self, durable_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class ReceiptMessage(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: _documents_pb2.Document
    def __init__(self, receipt: _Optional[_Union[_documents_pb2.Document, _Mapping]] = ...) -> None: ...

class ReceiptKept(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Problem(_message.Message):
    __slots__ = ("code", "message", "final")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    final: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., final: _Optional[bool] = ...) -> None: ...
