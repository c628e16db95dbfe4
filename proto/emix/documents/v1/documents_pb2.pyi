from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SignedBytes(_message.Message):
    __slots__ = ("body", "signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Signer(_message.Message):
    __slots__ = ("facility_key", "node_cert")
    FACILITY_KEY_FIELD_NUMBER: _ClassVar[int]
    NODE_CERT_FIELD_NUMBER: _ClassVar[int]
    facility_key: bytes
    node_cert: SignedBytes
    def __init__(self, facility_key: _Optional[bytes] = ..., node_cert: _Optional[_Union[SignedBytes, _Mapping]] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("kind", "body", "signature", "signer")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    kind: str
    body: bytes
    signature: bytes
    signer: Signer
    def __init__(self, kind: _Optional[str] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., signer: _Optional[_Union[Signer, _Mapping]] = ...) -> None: ...

class NodeCert(_message.Message):
    __slots__ = ("facility_key", "node_key", "issued_seconds", "expires_seconds", "generation", "node_signature")
    FACILITY_KEY_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    ISSUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NODE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    facility_key: bytes
    node_key: bytes
    issued_seconds: int
    expires_seconds: int
    generation: int
    node_signature: bytes
    def __init__(self, facility_key: _Optional[bytes] = ..., node_key: _Optional[bytes] = ..., issued_seconds: _Optional[int] = ..., expires_seconds: _Optional[int] = ..., generation: _Optional[int] = ..., node_signature: _Optional[bytes] = ...) -> None: ...

class TlsBinding(_message.Message):
    __slots__ = ("node_id", "certificate", "facility_id")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    certificate: bytes
    facility_id: bytes
    def __init__(self, node_id: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., facility_id: _Optional[bytes] = ...) -> None: ...

class SealKey(_message.Message):
    __slots__ = ("node_id", "public_key", "facility_id")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    public_key: bytes
    facility_id: bytes
    def __init__(self, node_id: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., facility_id: _Optional[bytes] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("node_id", "display_name", "endpoints", "introduction_endpoints", "issued_seconds", "facility_id")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    INTRODUCTION_ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    display_name: str
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    introduction_endpoints: _containers.RepeatedScalarFieldContainer[str]
    issued_seconds: int
    facility_id: bytes
    def __init__(self, node_id: _Optional[bytes] = ..., display_name: _Optional[str] = ..., endpoints: _Optional[_Iterable[str]] = ..., introduction_endpoints: _Optional[_Iterable[str]] = ..., issued_seconds: _Optional[int] = ..., facility_id: _Optional[bytes] = ...) -> None: ...

class Statements(_message.Message):
    __slots__ = ("facility_key", "node_cert", "tls_bindings", "seal_key", "profile")
    FACILITY_KEY_FIELD_NUMBER: _ClassVar[int]
    NODE_CERT_FIELD_NUMBER: _ClassVar[int]
    TLS_BINDINGS_FIELD_NUMBER: _ClassVar[int]
    SEAL_KEY_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    facility_key: bytes
    node_cert: SignedBytes
    tls_bindings: _containers.RepeatedCompositeFieldContainer[SignedBytes]
    seal_key: SignedBytes
    profile: SignedBytes
    def __init__(self, facility_key: _Optional[bytes] = ..., node_cert: _Optional[_Union[SignedBytes, _Mapping]] = ..., tls_bindings: _Optional[_Iterable[_Union[SignedBytes, _Mapping]]] = ..., seal_key: _Optional[_Union[SignedBytes, _Mapping]] = ..., profile: _Optional[_Union[SignedBytes, _Mapping]] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("package_id", "origin", "study_instance_uid", "created_milliseconds", "instances", "chunks", "attachments", "needs")
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    CREATED_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    NEEDS_FIELD_NUMBER: _ClassVar[int]
    package_id: bytes
    origin: bytes
    study_instance_uid: str
    created_milliseconds: int
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    needs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, package_id: _Optional[bytes] = ..., origin: _Optional[bytes] = ..., study_instance_uid: _Optional[str] = ..., created_milliseconds: _Optional[int] = ..., instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ..., needs: _Optional[_Iterable[str]] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("media_type", "size_bytes", "digest", "extents", "about_uids")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    ABOUT_UIDS_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    size_bytes: int
    digest: bytes
    extents: _containers.RepeatedCompositeFieldContainer[Extent]
    about_uids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., extents: _Optional[_Iterable[_Union[Extent, _Mapping]]] = ..., about_uids: _Optional[_Iterable[str]] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("sop_class_uid", "sop_instance_uid", "series_instance_uid", "transfer_syntax_uid", "size_bytes", "digest", "extents")
    SOP_CLASS_UID_FIELD_NUMBER: _ClassVar[int]
    SOP_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_SYNTAX_UID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    digest: bytes
    extents: _containers.RepeatedCompositeFieldContainer[Extent]
    def __init__(self, sop_class_uid: _Optional[str] = ..., sop_instance_uid: _Optional[str] = ..., series_instance_uid: _Optional[str] = ..., transfer_syntax_uid: _Optional[str] = ..., size_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ..., extents: _Optional[_Iterable[_Union[Extent, _Mapping]]] = ...) -> None: ...

class Extent(_message.Message):
    __slots__ = ("chunk_index", "offset", "length")
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    chunk_index: int
    offset: int
    length: int
    def __init__(self, chunk_index: _Optional[int] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("chunk_id", "plaintext_bytes", "sealed_bytes", "pieces_digest", "number")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIECES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    chunk_id: bytes
    plaintext_bytes: int
    sealed_bytes: int
    pieces_digest: bytes
    number: int
    def __init__(self, chunk_id: _Optional[bytes] = ..., plaintext_bytes: _Optional[int] = ..., sealed_bytes: _Optional[int] = ..., pieces_digest: _Optional[bytes] = ..., number: _Optional[int] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("transfer_id", "package_id", "origin", "manifest_digest", "manifest_bytes", "sender", "receiver", "sealed_key_digest", "created_milliseconds", "expires_milliseconds", "priority", "recipient", "note", "instances", "sealed_bytes", "sealed_summary")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    SEALED_KEY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CREATED_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEALED_SUMMARY_FIELD_NUMBER: _ClassVar[int]
    transfer_id: bytes
    package_id: bytes
    origin: bytes
    manifest_digest: bytes
    manifest_bytes: int
    sender: bytes
    receiver: bytes
    sealed_key_digest: bytes
    created_milliseconds: int
    expires_milliseconds: int
    priority: int
    recipient: str
    note: str
    instances: int
    sealed_bytes: int
    sealed_summary: bytes
    def __init__(self, transfer_id: _Optional[bytes] = ..., package_id: _Optional[bytes] = ..., origin: _Optional[bytes] = ..., manifest_digest: _Optional[bytes] = ..., manifest_bytes: _Optional[int] = ..., sender: _Optional[bytes] = ..., receiver: _Optional[bytes] = ..., sealed_key_digest: _Optional[bytes] = ..., created_milliseconds: _Optional[int] = ..., expires_milliseconds: _Optional[int] = ..., priority: _Optional[int] = ..., recipient: _Optional[str] = ..., note: _Optional[str] = ..., instances: _Optional[int] = ..., sealed_bytes: _Optional[int] = ..., sealed_summary: _Optional[bytes] = ...) -> None: ...

class Summary(_message.Message):
    __slots__ = ("patients", "study_instance_uid", "study_date", "description", "modalities", "accession_number")
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    STUDY_DATE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    ACCESSION_NUMBER_FIELD_NUMBER: _ClassVar[int]
    patients: _containers.RepeatedCompositeFieldContainer[SummaryPatient]
    study_instance_uid: str
    study_date: str
    description: str
    modalities: str
    accession_number: str
    def __init__(self, patients: _Optional[_Iterable[_Union[SummaryPatient, _Mapping]]] = ..., study_instance_uid: _Optional[str] = ..., study_date: _Optional[str] = ..., description: _Optional[str] = ..., modalities: _Optional[str] = ..., accession_number: _Optional[str] = ...) -> None: ...

class SummaryPatient(_message.Message):
    __slots__ = ("name", "patient_id", "birth_date", "sex")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BIRTH_DATE_FIELD_NUMBER: _ClassVar[int]
    SEX_FIELD_NUMBER: _ClassVar[int]
    name: str
    patient_id: str
    birth_date: str
    sex: str
    def __init__(self, name: _Optional[str] = ..., patient_id: _Optional[str] = ..., birth_date: _Optional[str] = ..., sex: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("transfer_id", "delivery_digest", "manifest_digest", "package_id", "receiver", "instances", "plaintext_bytes", "received_milliseconds", "reissued")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    REISSUED_FIELD_NUMBER: _ClassVar[int]
    transfer_id: bytes
    delivery_digest: bytes
    manifest_digest: bytes
    package_id: bytes
    receiver: bytes
    instances: int
    plaintext_bytes: int
    received_milliseconds: int
    reissued: bool
    def __init__(self, transfer_id: _Optional[bytes] = ..., delivery_digest: _Optional[bytes] = ..., manifest_digest: _Optional[bytes] = ..., package_id: _Optional[bytes] = ..., receiver: _Optional[bytes] = ..., instances: _Optional[int] = ..., plaintext_bytes: _Optional[int] = ..., received_milliseconds: _Optional[int] = ..., reissued: _Optional[bool] = ...) -> None: ...

class AuditHead(_message.Message):
    __slots__ = ("facility", "node_id", "sequence", "digest", "time_milliseconds")
    FACILITY_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIME_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    facility: bytes
    node_id: bytes
    sequence: int
    digest: bytes
    time_milliseconds: int
    def __init__(self, facility: _Optional[bytes] = ..., node_id: _Optional[bytes] = ..., sequence: _Optional[int] = ..., digest: _Optional[bytes] = ..., time_milliseconds: _Optional[int] = ...) -> None: ...
