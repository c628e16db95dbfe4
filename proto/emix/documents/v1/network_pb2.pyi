from emix.documents.v1 import documents_pb2 as _documents_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Invitation(_message.Message):
    __slots__ = ("network_id", "token_key", "display_name", "issued_seconds", "expires_seconds", "list_epoch")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_KEY_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    ISSUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LIST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    network_id: bytes
    token_key: bytes
    display_name: str
    issued_seconds: int
    expires_seconds: int
    list_epoch: int
    def __init__(self, network_id: _Optional[bytes] = ..., token_key: _Optional[bytes] = ..., display_name: _Optional[str] = ..., issued_seconds: _Optional[int] = ..., expires_seconds: _Optional[int] = ..., list_epoch: _Optional[int] = ...) -> None: ...

class MembershipClaim(_message.Message):
    __slots__ = ("invitation_digest", "facility_key", "joined_seconds")
    INVITATION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FACILITY_KEY_FIELD_NUMBER: _ClassVar[int]
    JOINED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    invitation_digest: bytes
    facility_key: bytes
    joined_seconds: int
    def __init__(self, invitation_digest: _Optional[bytes] = ..., facility_key: _Optional[bytes] = ..., joined_seconds: _Optional[int] = ...) -> None: ...

class Membership(_message.Message):
    __slots__ = ("invitation", "claim")
    INVITATION_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    invitation: _documents_pb2.SignedBytes
    claim: _documents_pb2.SignedBytes
    def __init__(self, invitation: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ..., claim: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ...) -> None: ...

class ListKeyCert(_message.Message):
    __slots__ = ("network_id", "list_key", "expires_seconds", "epoch")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    LIST_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    network_id: bytes
    list_key: bytes
    expires_seconds: int
    epoch: int
    def __init__(self, network_id: _Optional[bytes] = ..., list_key: _Optional[bytes] = ..., expires_seconds: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class ListedMember(_message.Message):
    __slots__ = ("invitation_digest", "facility_id")
    INVITATION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    invitation_digest: bytes
    facility_id: bytes
    def __init__(self, invitation_digest: _Optional[bytes] = ..., facility_id: _Optional[bytes] = ...) -> None: ...

class NetworkList(_message.Message):
    __slots__ = ("network_id", "number", "issued_seconds", "expires_seconds", "members", "revoked_invitations", "epoch")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ISSUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_INVITATIONS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    network_id: bytes
    number: int
    issued_seconds: int
    expires_seconds: int
    members: _containers.RepeatedCompositeFieldContainer[ListedMember]
    revoked_invitations: _containers.RepeatedScalarFieldContainer[bytes]
    epoch: int
    def __init__(self, network_id: _Optional[bytes] = ..., number: _Optional[int] = ..., issued_seconds: _Optional[int] = ..., expires_seconds: _Optional[int] = ..., members: _Optional[_Iterable[_Union[ListedMember, _Mapping]]] = ..., revoked_invitations: _Optional[_Iterable[bytes]] = ..., epoch: _Optional[int] = ...) -> None: ...

class SignedList(_message.Message):
    __slots__ = ("list", "list_key_cert")
    LIST_FIELD_NUMBER: _ClassVar[int]
    LIST_KEY_CERT_FIELD_NUMBER: _ClassVar[int]
    list: _documents_pb2.SignedBytes
    list_key_cert: _documents_pb2.SignedBytes
    def __init__(self, list: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ..., list_key_cert: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ...) -> None: ...

class ListChange(_message.Message):
    __slots__ = ("base_digest", "number", "issued_seconds", "expires_seconds", "added_members", "removed_invitations", "added_revocations", "signature", "list_key_cert", "epoch")
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ISSUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ADDED_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_INVITATIONS_FIELD_NUMBER: _ClassVar[int]
    ADDED_REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    LIST_KEY_CERT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    base_digest: bytes
    number: int
    issued_seconds: int
    expires_seconds: int
    added_members: _containers.RepeatedCompositeFieldContainer[ListedMember]
    removed_invitations: _containers.RepeatedScalarFieldContainer[bytes]
    added_revocations: _containers.RepeatedScalarFieldContainer[bytes]
    signature: bytes
    list_key_cert: _documents_pb2.SignedBytes
    epoch: int
    def __init__(self, base_digest: _Optional[bytes] = ..., number: _Optional[int] = ..., issued_seconds: _Optional[int] = ..., expires_seconds: _Optional[int] = ..., added_members: _Optional[_Iterable[_Union[ListedMember, _Mapping]]] = ..., removed_invitations: _Optional[_Iterable[bytes]] = ..., added_revocations: _Optional[_Iterable[bytes]] = ..., signature: _Optional[bytes] = ..., list_key_cert: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ..., epoch: _Optional[int] = ...) -> None: ...

class JoinLetter(_message.Message):
    __slots__ = ("invitation", "token_secret", "network_key", "network_name", "endpoints", "root_certificate")
    INVITATION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_SECRET_FIELD_NUMBER: _ClassVar[int]
    NETWORK_KEY_FIELD_NUMBER: _ClassVar[int]
    NETWORK_NAME_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    ROOT_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    invitation: _documents_pb2.SignedBytes
    token_secret: bytes
    network_key: bytes
    network_name: str
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    root_certificate: bytes
    def __init__(self, invitation: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ..., token_secret: _Optional[bytes] = ..., network_key: _Optional[bytes] = ..., network_name: _Optional[str] = ..., endpoints: _Optional[_Iterable[str]] = ..., root_certificate: _Optional[bytes] = ...) -> None: ...

class Listing(_message.Message):
    __slots__ = ("node_id", "issued_seconds", "city", "departments", "recipients", "software", "protocol_version", "never_relayed", "only_relays", "facility_id")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CITY_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENTS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    NEVER_RELAYED_FIELD_NUMBER: _ClassVar[int]
    ONLY_RELAYS_FIELD_NUMBER: _ClassVar[int]
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    issued_seconds: int
    city: str
    departments: _containers.RepeatedScalarFieldContainer[str]
    recipients: _containers.RepeatedScalarFieldContainer[str]
    software: str
    protocol_version: int
    never_relayed: bool
    only_relays: _containers.RepeatedScalarFieldContainer[str]
    facility_id: bytes
    def __init__(self, node_id: _Optional[bytes] = ..., issued_seconds: _Optional[int] = ..., city: _Optional[str] = ..., departments: _Optional[_Iterable[str]] = ..., recipients: _Optional[_Iterable[str]] = ..., software: _Optional[str] = ..., protocol_version: _Optional[int] = ..., never_relayed: _Optional[bool] = ..., only_relays: _Optional[_Iterable[str]] = ..., facility_id: _Optional[bytes] = ...) -> None: ...

class TicketKeyCert(_message.Message):
    __slots__ = ("network_id", "ticket_key", "expires_seconds", "relays")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    TICKET_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    network_id: bytes
    ticket_key: bytes
    expires_seconds: int
    relays: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, network_id: _Optional[bytes] = ..., ticket_key: _Optional[bytes] = ..., expires_seconds: _Optional[int] = ..., relays: _Optional[_Iterable[str]] = ...) -> None: ...

class Ticket(_message.Message):
    __slots__ = ("ticket_id", "relay", "is_caller", "caller_facility", "caller_node", "target_facility", "target_node", "expires_seconds")
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    IS_CALLER_FIELD_NUMBER: _ClassVar[int]
    CALLER_FACILITY_FIELD_NUMBER: _ClassVar[int]
    CALLER_NODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FACILITY_FIELD_NUMBER: _ClassVar[int]
    TARGET_NODE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ticket_id: bytes
    relay: str
    is_caller: bool
    caller_facility: bytes
    caller_node: bytes
    target_facility: bytes
    target_node: bytes
    expires_seconds: int
    def __init__(self, ticket_id: _Optional[bytes] = ..., relay: _Optional[str] = ..., is_caller: _Optional[bool] = ..., caller_facility: _Optional[bytes] = ..., caller_node: _Optional[bytes] = ..., target_facility: _Optional[bytes] = ..., target_node: _Optional[bytes] = ..., expires_seconds: _Optional[int] = ...) -> None: ...

class SignedTicket(_message.Message):
    __slots__ = ("ticket", "ticket_key_cert")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    TICKET_KEY_CERT_FIELD_NUMBER: _ClassVar[int]
    ticket: _documents_pb2.SignedBytes
    ticket_key_cert: _documents_pb2.SignedBytes
    def __init__(self, ticket: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ..., ticket_key_cert: _Optional[_Union[_documents_pb2.SignedBytes, _Mapping]] = ...) -> None: ...
