from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("facility_id", "display_name", "node_id", "software", "peer_endpoint", "introduction_endpoint", "studies", "instances", "sealed_bytes", "free_bytes", "open_transfers", "held_instances", "held_offers", "alarms", "started_seconds", "waiting_pairings", "unfinished_imports", "asking_facilities", "chunk_place")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    PEER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    INTRODUCTION_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPEN_TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    HELD_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    HELD_OFFERS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    STARTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITING_PAIRINGS_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_IMPORTS_FIELD_NUMBER: _ClassVar[int]
    ASKING_FACILITIES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_PLACE_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    display_name: str
    node_id: str
    software: str
    peer_endpoint: str
    introduction_endpoint: str
    studies: int
    instances: int
    sealed_bytes: int
    free_bytes: int
    open_transfers: int
    held_instances: int
    held_offers: int
    alarms: _containers.RepeatedScalarFieldContainer[str]
    started_seconds: int
    waiting_pairings: int
    unfinished_imports: int
    asking_facilities: int
    chunk_place: str
    def __init__(self, facility_id: _Optional[str] = ..., display_name: _Optional[str] = ..., node_id: _Optional[str] = ..., software: _Optional[str] = ..., peer_endpoint: _Optional[str] = ..., introduction_endpoint: _Optional[str] = ..., studies: _Optional[int] = ..., instances: _Optional[int] = ..., sealed_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., open_transfers: _Optional[int] = ..., held_instances: _Optional[int] = ..., held_offers: _Optional[int] = ..., alarms: _Optional[_Iterable[str]] = ..., started_seconds: _Optional[int] = ..., waiting_pairings: _Optional[int] = ..., unfinished_imports: _Optional[int] = ..., asking_facilities: _Optional[int] = ..., chunk_place: _Optional[str] = ...) -> None: ...

class GetIdentityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetIdentityResponse(_message.Message):
    __slots__ = ("facility_id", "statements")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    statements: bytes
    def __init__(self, facility_id: _Optional[str] = ..., statements: _Optional[bytes] = ...) -> None: ...

class DiagnoseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DiagnoseResponse(_message.Message):
    __slots__ = ("findings",)
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("subject", "level", "text", "advice")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    subject: str
    level: str
    text: str
    advice: str
    def __init__(self, subject: _Optional[str] = ..., level: _Optional[str] = ..., text: _Optional[str] = ..., advice: _Optional[str] = ...) -> None: ...

class CheckStoreRequest(_message.Message):
    __slots__ = ("read_data", "study_instance_uids")
    READ_DATA_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UIDS_FIELD_NUMBER: _ClassVar[int]
    read_data: bool
    study_instance_uids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, read_data: _Optional[bool] = ..., study_instance_uids: _Optional[_Iterable[str]] = ...) -> None: ...

class CheckStoreResponse(_message.Message):
    __slots__ = ("chunks_done", "chunks_total", "problem", "chunks_unopened")
    CHUNKS_DONE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_UNOPENED_FIELD_NUMBER: _ClassVar[int]
    chunks_done: int
    chunks_total: int
    problem: str
    chunks_unopened: int
    def __init__(self, chunks_done: _Optional[int] = ..., chunks_total: _Optional[int] = ..., problem: _Optional[str] = ..., chunks_unopened: _Optional[int] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("destination", "had_chunks")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    HAD_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    destination: str
    had_chunks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, destination: _Optional[str] = ..., had_chunks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("size", "piece", "unreadable", "end", "had")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    HAD_FIELD_NUMBER: _ClassVar[int]
    size: BackupSize
    piece: BackupPiece
    unreadable: BackupUnreadable
    end: BackupEnd
    had: BackupHad
    def __init__(self, size: _Optional[_Union[BackupSize, _Mapping]] = ..., piece: _Optional[_Union[BackupPiece, _Mapping]] = ..., unreadable: _Optional[_Union[BackupUnreadable, _Mapping]] = ..., end: _Optional[_Union[BackupEnd, _Mapping]] = ..., had: _Optional[_Union[BackupHad, _Mapping]] = ...) -> None: ...

class BackupSize(_message.Message):
    __slots__ = ("files", "bytes")
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    files: int
    bytes: int
    def __init__(self, files: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class BackupHad(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, chunks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BackupPiece(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class BackupUnreadable(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class BackupEnd(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: int
    def __init__(self, files: _Optional[int] = ...) -> None: ...

class ConfirmClockRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfirmClockResponse(_message.Message):
    __slots__ = ("was_ahead_seconds",)
    WAS_AHEAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    was_ahead_seconds: int
    def __init__(self, was_ahead_seconds: _Optional[int] = ...) -> None: ...

class PreviewRetentionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PreviewRetentionResponse(_message.Message):
    __slots__ = ("days", "suspended", "entries")
    DAYS_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    days: int
    suspended: str
    entries: _containers.RepeatedCompositeFieldContainer[RetentionEntry]
    def __init__(self, days: _Optional[int] = ..., suspended: _Optional[str] = ..., entries: _Optional[_Iterable[_Union[RetentionEntry, _Mapping]]] = ...) -> None: ...

class RetentionEntry(_message.Message):
    __slots__ = ("study_instance_uid", "package_id", "origin", "received_from", "received_seconds", "fate", "expiring_seconds", "number")
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FROM_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    package_id: str
    origin: str
    received_from: str
    received_seconds: int
    fate: str
    expiring_seconds: int
    number: int
    def __init__(self, study_instance_uid: _Optional[str] = ..., package_id: _Optional[str] = ..., origin: _Optional[str] = ..., received_from: _Optional[str] = ..., received_seconds: _Optional[int] = ..., fate: _Optional[str] = ..., expiring_seconds: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class ApplyRetentionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ApplyRetentionResponse(_message.Message):
    __slots__ = ("announced", "deleted")
    ANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    announced: int
    deleted: int
    def __init__(self, announced: _Optional[int] = ..., deleted: _Optional[int] = ...) -> None: ...

class ListPeersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPeersResponse(_message.Message):
    __slots__ = ("peers", "waiting_pairings", "asking_facilities")
    PEERS_FIELD_NUMBER: _ClassVar[int]
    WAITING_PAIRINGS_FIELD_NUMBER: _ClassVar[int]
    ASKING_FACILITIES_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    waiting_pairings: _containers.RepeatedCompositeFieldContainer[BeginStringPairingResponse]
    asking_facilities: _containers.RepeatedCompositeFieldContainer[AskingFacility]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., waiting_pairings: _Optional[_Iterable[_Union[BeginStringPairingResponse, _Mapping]]] = ..., asking_facilities: _Optional[_Iterable[_Union[AskingFacility, _Mapping]]] = ...) -> None: ...

class AskingFacility(_message.Message):
    __slots__ = ("facility_id", "display_name", "asked_seconds")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    ASKED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    display_name: str
    asked_seconds: int
    def __init__(self, facility_id: _Optional[str] = ..., display_name: _Optional[str] = ..., asked_seconds: _Optional[int] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("facility_id", "display_name", "node_id", "state", "route", "endpoint", "last_seen_seconds", "round_trip_milliseconds", "pinned_how", "pinned_seconds", "problem", "software", "bytes_a_second", "warning")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    PINNED_HOW_FIELD_NUMBER: _ClassVar[int]
    PINNED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    BYTES_A_SECOND_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    display_name: str
    node_id: str
    state: str
    route: str
    endpoint: str
    last_seen_seconds: int
    round_trip_milliseconds: float
    pinned_how: str
    pinned_seconds: int
    problem: str
    software: str
    bytes_a_second: int
    warning: str
    def __init__(self, facility_id: _Optional[str] = ..., display_name: _Optional[str] = ..., node_id: _Optional[str] = ..., state: _Optional[str] = ..., route: _Optional[str] = ..., endpoint: _Optional[str] = ..., last_seen_seconds: _Optional[int] = ..., round_trip_milliseconds: _Optional[float] = ..., pinned_how: _Optional[str] = ..., pinned_seconds: _Optional[int] = ..., problem: _Optional[str] = ..., software: _Optional[str] = ..., bytes_a_second: _Optional[int] = ..., warning: _Optional[str] = ...) -> None: ...

class JoinNetworkRequest(_message.Message):
    __slots__ = ("letter",)
    LETTER_FIELD_NUMBER: _ClassVar[int]
    letter: str
    def __init__(self, letter: _Optional[str] = ...) -> None: ...

class JoinNetworkResponse(_message.Message):
    __slots__ = ("network",)
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    network: Network
    def __init__(self, network: _Optional[_Union[Network, _Mapping]] = ...) -> None: ...

class ListNetworksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNetworksResponse(_message.Message):
    __slots__ = ("networks",)
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    networks: _containers.RepeatedCompositeFieldContainer[Network]
    def __init__(self, networks: _Optional[_Iterable[_Union[Network, _Mapping]]] = ...) -> None: ...

class LeaveNetworkRequest(_message.Message):
    __slots__ = ("network",)
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    network: str
    def __init__(self, network: _Optional[str] = ...) -> None: ...

class LeaveNetworkResponse(_message.Message):
    __slots__ = ("network",)
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    network: Network
    def __init__(self, network: _Optional[_Union[Network, _Mapping]] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("network_id", "name", "standing", "list_number", "list_expires_seconds", "members", "state", "endpoint", "problem", "joined_seconds", "list_epoch")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    LIST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    LIST_EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    JOINED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LIST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    name: str
    standing: str
    list_number: int
    list_expires_seconds: int
    members: int
    state: str
    endpoint: str
    problem: str
    joined_seconds: int
    list_epoch: int
    def __init__(self, network_id: _Optional[str] = ..., name: _Optional[str] = ..., standing: _Optional[str] = ..., list_number: _Optional[int] = ..., list_expires_seconds: _Optional[int] = ..., members: _Optional[int] = ..., state: _Optional[str] = ..., endpoint: _Optional[str] = ..., problem: _Optional[str] = ..., joined_seconds: _Optional[int] = ..., list_epoch: _Optional[int] = ...) -> None: ...

class FindFacilitiesRequest(_message.Message):
    __slots__ = ("words", "limit")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    words: str
    limit: int
    def __init__(self, words: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class FindFacilitiesResponse(_message.Message):
    __slots__ = ("facilities", "silent_networks")
    FACILITIES_FIELD_NUMBER: _ClassVar[int]
    SILENT_NETWORKS_FIELD_NUMBER: _ClassVar[int]
    facilities: _containers.RepeatedCompositeFieldContainer[FoundFacility]
    silent_networks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, facilities: _Optional[_Iterable[_Union[FoundFacility, _Mapping]]] = ..., silent_networks: _Optional[_Iterable[str]] = ...) -> None: ...

class FoundFacility(_message.Message):
    __slots__ = ("facility_id", "display_name", "listed_name", "city", "departments", "recipients", "online", "standing", "network", "software", "paired", "seen_seconds")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LISTED_NAME_FIELD_NUMBER: _ClassVar[int]
    CITY_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENTS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    PAIRED_FIELD_NUMBER: _ClassVar[int]
    SEEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    display_name: str
    listed_name: str
    city: str
    departments: _containers.RepeatedScalarFieldContainer[str]
    recipients: _containers.RepeatedScalarFieldContainer[str]
    online: bool
    standing: str
    network: str
    software: str
    paired: bool
    seen_seconds: int
    def __init__(self, facility_id: _Optional[str] = ..., display_name: _Optional[str] = ..., listed_name: _Optional[str] = ..., city: _Optional[str] = ..., departments: _Optional[_Iterable[str]] = ..., recipients: _Optional[_Iterable[str]] = ..., online: _Optional[bool] = ..., standing: _Optional[str] = ..., network: _Optional[str] = ..., software: _Optional[str] = ..., paired: _Optional[bool] = ..., seen_seconds: _Optional[int] = ...) -> None: ...

class PairPeerRequest(_message.Message):
    __slots__ = ("facility_id", "at", "statements", "endpoint", "restore_removed", "refuse_alike")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    RESTORE_REMOVED_FIELD_NUMBER: _ClassVar[int]
    REFUSE_ALIKE_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    at: str
    statements: bytes
    endpoint: str
    restore_removed: bool
    refuse_alike: bool
    def __init__(self, facility_id: _Optional[str] = ..., at: _Optional[str] = ..., statements: _Optional[bytes] = ..., endpoint: _Optional[str] = ..., restore_removed: _Optional[bool] = ..., refuse_alike: _Optional[bool] = ...) -> None: ...

class PairPeerResponse(_message.Message):
    __slots__ = ("peer", "warnings")
    PEER_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class BeginStringPairingRequest(_message.Message):
    __slots__ = ("at",)
    AT_FIELD_NUMBER: _ClassVar[int]
    at: str
    def __init__(self, at: _Optional[str] = ...) -> None: ...

class BeginStringPairingResponse(_message.Message):
    __slots__ = ("attempt", "short_string", "display_name")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SHORT_STRING_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    attempt: str
    short_string: str
    display_name: str
    def __init__(self, attempt: _Optional[str] = ..., short_string: _Optional[str] = ..., display_name: _Optional[str] = ...) -> None: ...

class ListStringPairingsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStringPairingsResponse(_message.Message):
    __slots__ = ("pairings",)
    PAIRINGS_FIELD_NUMBER: _ClassVar[int]
    pairings: _containers.RepeatedCompositeFieldContainer[BeginStringPairingResponse]
    def __init__(self, pairings: _Optional[_Iterable[_Union[BeginStringPairingResponse, _Mapping]]] = ...) -> None: ...

class ConfirmStringPairingRequest(_message.Message):
    __slots__ = ("short_string",)
    SHORT_STRING_FIELD_NUMBER: _ClassVar[int]
    short_string: str
    def __init__(self, short_string: _Optional[str] = ...) -> None: ...

class ConfirmStringPairingResponse(_message.Message):
    __slots__ = ("peer", "warnings")
    PEER_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class RemovePeerRequest(_message.Message):
    __slots__ = ("facility",)
    FACILITY_FIELD_NUMBER: _ClassVar[int]
    facility: str
    def __init__(self, facility: _Optional[str] = ...) -> None: ...

class RemovePeerResponse(_message.Message):
    __slots__ = ("peer",)
    PEER_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("paths", "file", "data", "cancel", "broken")
    PATHS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    paths: ImportPaths
    file: ImportFile
    data: bytes
    cancel: ImportCancel
    broken: ImportBroken
    def __init__(self, paths: _Optional[_Union[ImportPaths, _Mapping]] = ..., file: _Optional[_Union[ImportFile, _Mapping]] = ..., data: _Optional[bytes] = ..., cancel: _Optional[_Union[ImportCancel, _Mapping]] = ..., broken: _Optional[_Union[ImportBroken, _Mapping]] = ...) -> None: ...

class ImportPaths(_message.Message):
    __slots__ = ("paths", "resumes")
    PATHS_FIELD_NUMBER: _ClassVar[int]
    RESUMES_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedScalarFieldContainer[str]
    resumes: int
    def __init__(self, paths: _Optional[_Iterable[str]] = ..., resumes: _Optional[int] = ...) -> None: ...

class ImportFile(_message.Message):
    __slots__ = ("label", "size_bytes", "sources", "resumes")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    RESUMES_FIELD_NUMBER: _ClassVar[int]
    label: str
    size_bytes: int
    sources: _containers.RepeatedScalarFieldContainer[str]
    resumes: int
    def __init__(self, label: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sources: _Optional[_Iterable[str]] = ..., resumes: _Optional[int] = ...) -> None: ...

class ImportBroken(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ImportCancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ImportResponse(_message.Message):
    __slots__ = ("progress", "finding", "summary", "unreadable", "studies")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    progress: ImportProgress
    finding: ImportFinding
    summary: ImportSummary
    unreadable: ImportUnreadable
    studies: ImportStudies
    def __init__(self, progress: _Optional[_Union[ImportProgress, _Mapping]] = ..., finding: _Optional[_Union[ImportFinding, _Mapping]] = ..., summary: _Optional[_Union[ImportSummary, _Mapping]] = ..., unreadable: _Optional[_Union[ImportUnreadable, _Mapping]] = ..., studies: _Optional[_Union[ImportStudies, _Mapping]] = ...) -> None: ...

class ImportUnreadable(_message.Message):
    __slots__ = ("paths",)
    PATHS_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, paths: _Optional[_Iterable[str]] = ...) -> None: ...

class ImportProgress(_message.Message):
    __slots__ = ("files_done", "files_total", "bytes_done", "bytes_total")
    FILES_DONE_FIELD_NUMBER: _ClassVar[int]
    FILES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    def __init__(self, files_done: _Optional[int] = ..., files_total: _Optional[int] = ..., bytes_done: _Optional[int] = ..., bytes_total: _Optional[int] = ...) -> None: ...

class ImportFinding(_message.Message):
    __slots__ = ("label", "verdict", "reasons")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    label: str
    verdict: str
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, label: _Optional[str] = ..., verdict: _Optional[str] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class ImportSummary(_message.Message):
    __slots__ = ("carried", "flagged", "known", "held", "refused", "plaintext_bytes", "sealed_bytes", "directories", "not_dicom", "missing")
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    NOT_DICOM_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    carried: int
    flagged: int
    known: int
    held: int
    refused: int
    plaintext_bytes: int
    sealed_bytes: int
    directories: int
    not_dicom: int
    missing: int
    def __init__(self, carried: _Optional[int] = ..., flagged: _Optional[int] = ..., known: _Optional[int] = ..., held: _Optional[int] = ..., refused: _Optional[int] = ..., plaintext_bytes: _Optional[int] = ..., sealed_bytes: _Optional[int] = ..., directories: _Optional[int] = ..., not_dicom: _Optional[int] = ..., missing: _Optional[int] = ...) -> None: ...

class ImportStudies(_message.Message):
    __slots__ = ("study_instance_uids",)
    STUDY_INSTANCE_UIDS_FIELD_NUMBER: _ClassVar[int]
    study_instance_uids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, study_instance_uids: _Optional[_Iterable[str]] = ...) -> None: ...

class ListStudiesRequest(_message.Message):
    __slots__ = ("query", "arrived_only", "limit")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_ONLY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    query: str
    arrived_only: bool
    limit: int
    def __init__(self, query: _Optional[str] = ..., arrived_only: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class ListStudiesResponse(_message.Message):
    __slots__ = ("studies",)
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    studies: _containers.RepeatedCompositeFieldContainer[Study]
    def __init__(self, studies: _Optional[_Iterable[_Union[Study, _Mapping]]] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("level", "keys", "words", "arrived_only", "limit", "offset")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_ONLY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    level: str
    keys: _containers.ScalarMap[str, str]
    words: str
    arrived_only: bool
    limit: int
    offset: int
    def __init__(self, level: _Optional[str] = ..., keys: _Optional[_Mapping[str, str]] = ..., words: _Optional[str] = ..., arrived_only: _Optional[bool] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("matches",)
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    def __init__(self, matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("study_instance_uid", "origin", "number", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    origin: str
    number: int
    values: _containers.ScalarMap[str, str]
    def __init__(self, study_instance_uid: _Optional[str] = ..., origin: _Optional[str] = ..., number: _Optional[int] = ..., values: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Study(_message.Message):
    __slots__ = ("study_instance_uid", "origin", "origin_name", "origin_pinned", "patient_name", "patient_id", "study_date", "study_description", "modalities", "series", "instances", "plaintext_bytes", "sealed_bytes", "packages", "sent_to", "delivered_seconds", "deleted_seconds", "delivered_instances", "versioned_instances", "number", "birth_date", "sex", "accession_number", "referring_physician", "institution", "series_entries", "patients", "patients_total", "unfinished_imports")
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_NAME_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_PINNED_FIELD_NUMBER: _ClassVar[int]
    PATIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    PATIENT_ID_FIELD_NUMBER: _ClassVar[int]
    STUDY_DATE_FIELD_NUMBER: _ClassVar[int]
    STUDY_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    SENT_TO_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DELETED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    VERSIONED_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BIRTH_DATE_FIELD_NUMBER: _ClassVar[int]
    SEX_FIELD_NUMBER: _ClassVar[int]
    ACCESSION_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REFERRING_PHYSICIAN_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    SERIES_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    PATIENTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_IMPORTS_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    origin: str
    origin_name: str
    origin_pinned: bool
    patient_name: str
    patient_id: str
    study_date: str
    study_description: str
    modalities: _containers.RepeatedScalarFieldContainer[str]
    series: int
    instances: int
    plaintext_bytes: int
    sealed_bytes: int
    packages: _containers.RepeatedCompositeFieldContainer[Package]
    sent_to: _containers.RepeatedScalarFieldContainer[str]
    delivered_seconds: _containers.RepeatedScalarFieldContainer[int]
    deleted_seconds: _containers.RepeatedScalarFieldContainer[int]
    delivered_instances: _containers.RepeatedScalarFieldContainer[int]
    versioned_instances: int
    number: int
    birth_date: str
    sex: str
    accession_number: str
    referring_physician: str
    institution: str
    series_entries: _containers.RepeatedCompositeFieldContainer[Series]
    patients: _containers.RepeatedCompositeFieldContainer[Patient]
    patients_total: int
    unfinished_imports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, study_instance_uid: _Optional[str] = ..., origin: _Optional[str] = ..., origin_name: _Optional[str] = ..., origin_pinned: _Optional[bool] = ..., patient_name: _Optional[str] = ..., patient_id: _Optional[str] = ..., study_date: _Optional[str] = ..., study_description: _Optional[str] = ..., modalities: _Optional[_Iterable[str]] = ..., series: _Optional[int] = ..., instances: _Optional[int] = ..., plaintext_bytes: _Optional[int] = ..., sealed_bytes: _Optional[int] = ..., packages: _Optional[_Iterable[_Union[Package, _Mapping]]] = ..., sent_to: _Optional[_Iterable[str]] = ..., delivered_seconds: _Optional[_Iterable[int]] = ..., deleted_seconds: _Optional[_Iterable[int]] = ..., delivered_instances: _Optional[_Iterable[int]] = ..., versioned_instances: _Optional[int] = ..., number: _Optional[int] = ..., birth_date: _Optional[str] = ..., sex: _Optional[str] = ..., accession_number: _Optional[str] = ..., referring_physician: _Optional[str] = ..., institution: _Optional[str] = ..., series_entries: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., patients: _Optional[_Iterable[_Union[Patient, _Mapping]]] = ..., patients_total: _Optional[int] = ..., unfinished_imports: _Optional[_Iterable[int]] = ...) -> None: ...

class Patient(_message.Message):
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

class Series(_message.Message):
    __slots__ = ("series_instance_uid", "series_number", "modality", "description", "instances")
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SERIES_NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    series_instance_uid: str
    series_number: str
    modality: str
    description: str
    instances: int
    def __init__(self, series_instance_uid: _Optional[str] = ..., series_number: _Optional[str] = ..., modality: _Optional[str] = ..., description: _Optional[str] = ..., instances: _Optional[int] = ...) -> None: ...

class Package(_message.Message):
    __slots__ = ("package_id", "instances", "created_seconds", "received_from", "sealed_bytes", "received_seconds", "recipient", "note", "held_instances", "flagged_instances", "hold_reasons", "priority", "further_deliveries", "attachments", "attachments_total")
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    CREATED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FROM_FIELD_NUMBER: _ClassVar[int]
    SEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    HELD_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    HOLD_REASONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    FURTHER_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    package_id: str
    instances: int
    created_seconds: int
    received_from: str
    sealed_bytes: int
    received_seconds: int
    recipient: str
    note: str
    held_instances: int
    flagged_instances: int
    hold_reasons: _containers.RepeatedScalarFieldContainer[str]
    priority: str
    further_deliveries: _containers.RepeatedCompositeFieldContainer[PackageDelivery]
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    attachments_total: int
    def __init__(self, package_id: _Optional[str] = ..., instances: _Optional[int] = ..., created_seconds: _Optional[int] = ..., received_from: _Optional[str] = ..., sealed_bytes: _Optional[int] = ..., received_seconds: _Optional[int] = ..., recipient: _Optional[str] = ..., note: _Optional[str] = ..., held_instances: _Optional[int] = ..., flagged_instances: _Optional[int] = ..., hold_reasons: _Optional[_Iterable[str]] = ..., priority: _Optional[str] = ..., further_deliveries: _Optional[_Iterable[_Union[PackageDelivery, _Mapping]]] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ..., attachments_total: _Optional[int] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("media_type", "size_bytes", "about_uids")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ABOUT_UIDS_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    size_bytes: int
    about_uids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., about_uids: _Optional[_Iterable[str]] = ...) -> None: ...

class PackageDelivery(_message.Message):
    __slots__ = ("sender", "received_seconds", "recipient", "note", "priority")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    sender: str
    received_seconds: int
    recipient: str
    note: str
    priority: str
    def __init__(self, sender: _Optional[str] = ..., received_seconds: _Optional[int] = ..., recipient: _Optional[str] = ..., note: _Optional[str] = ..., priority: _Optional[str] = ...) -> None: ...

class GetStudyRequest(_message.Message):
    __slots__ = ("study",)
    STUDY_FIELD_NUMBER: _ClassVar[int]
    study: str
    def __init__(self, study: _Optional[str] = ...) -> None: ...

class GetStudyResponse(_message.Message):
    __slots__ = ("sources", "chosen_by", "chosen_origin")
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_BY_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[Study]
    chosen_by: str
    chosen_origin: str
    def __init__(self, sources: _Optional[_Iterable[_Union[Study, _Mapping]]] = ..., chosen_by: _Optional[str] = ..., chosen_origin: _Optional[str] = ...) -> None: ...

class ExportStudyRequest(_message.Message):
    __slots__ = ("study", "directory", "dicomdir", "safe_preamble", "all_versions", "parent_device", "parent_inode", "stream", "origin", "include_held", "in_order")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    DICOMDIR_FIELD_NUMBER: _ClassVar[int]
    SAFE_PREAMBLE_FIELD_NUMBER: _ClassVar[int]
    ALL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PARENT_DEVICE_FIELD_NUMBER: _ClassVar[int]
    PARENT_INODE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_HELD_FIELD_NUMBER: _ClassVar[int]
    IN_ORDER_FIELD_NUMBER: _ClassVar[int]
    study: str
    directory: str
    dicomdir: bool
    safe_preamble: bool
    all_versions: bool
    parent_device: int
    parent_inode: int
    stream: bool
    origin: str
    include_held: bool
    in_order: bool
    def __init__(self, study: _Optional[str] = ..., directory: _Optional[str] = ..., dicomdir: _Optional[bool] = ..., safe_preamble: _Optional[bool] = ..., all_versions: _Optional[bool] = ..., parent_device: _Optional[int] = ..., parent_inode: _Optional[int] = ..., stream: _Optional[bool] = ..., origin: _Optional[str] = ..., include_held: _Optional[bool] = ..., in_order: _Optional[bool] = ...) -> None: ...

class ExportStudyResponse(_message.Message):
    __slots__ = ("instances_done", "instances_total", "bytes_done", "bytes_total", "unwritable", "piece", "origin", "held", "unlisted", "without_dicomdir", "older_versions", "unfinished_imports", "attachments")
    INSTANCES_DONE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    UNWRITABLE_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_DICOMDIR_FIELD_NUMBER: _ClassVar[int]
    OLDER_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_IMPORTS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    instances_done: int
    instances_total: int
    bytes_done: int
    bytes_total: int
    unwritable: bool
    piece: ExportPiece
    origin: str
    held: HeldInstance
    unlisted: UnlistedFile
    without_dicomdir: bool
    older_versions: int
    unfinished_imports: _containers.RepeatedScalarFieldContainer[int]
    attachments: int
    def __init__(self, instances_done: _Optional[int] = ..., instances_total: _Optional[int] = ..., bytes_done: _Optional[int] = ..., bytes_total: _Optional[int] = ..., unwritable: _Optional[bool] = ..., piece: _Optional[_Union[ExportPiece, _Mapping]] = ..., origin: _Optional[str] = ..., held: _Optional[_Union[HeldInstance, _Mapping]] = ..., unlisted: _Optional[_Union[UnlistedFile, _Mapping]] = ..., without_dicomdir: _Optional[bool] = ..., older_versions: _Optional[int] = ..., unfinished_imports: _Optional[_Iterable[int]] = ..., attachments: _Optional[int] = ...) -> None: ...

class UnlistedFile(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ExportPiece(_message.Message):
    __slots__ = ("name", "offset", "data", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    data: bytes
    size: int
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class DeleteStudyRequest(_message.Message):
    __slots__ = ("study", "origin")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    study: str
    origin: str
    def __init__(self, study: _Optional[str] = ..., origin: _Optional[str] = ...) -> None: ...

class DeleteStudyResponse(_message.Message):
    __slots__ = ("packages", "instances", "held", "held_instances", "unfinished_imports")
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    HELD_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_IMPORTS_FIELD_NUMBER: _ClassVar[int]
    packages: int
    instances: int
    held: _containers.RepeatedCompositeFieldContainer[HeldInstance]
    held_instances: int
    unfinished_imports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, packages: _Optional[int] = ..., instances: _Optional[int] = ..., held: _Optional[_Iterable[_Union[HeldInstance, _Mapping]]] = ..., held_instances: _Optional[int] = ..., unfinished_imports: _Optional[_Iterable[int]] = ...) -> None: ...

class ListHeldRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListHeldResponse(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: _containers.RepeatedCompositeFieldContainer[HeldInstance]
    def __init__(self, held: _Optional[_Iterable[_Union[HeldInstance, _Mapping]]] = ...) -> None: ...

class HeldInstance(_message.Message):
    __slots__ = ("held_id", "reasons", "size_bytes", "sop_instance_uid", "study_instance_uid", "label", "held_seconds", "received_from")
    HELD_ID_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SOP_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    HELD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FROM_FIELD_NUMBER: _ClassVar[int]
    held_id: int
    reasons: _containers.RepeatedScalarFieldContainer[str]
    size_bytes: int
    sop_instance_uid: str
    study_instance_uid: str
    label: str
    held_seconds: int
    received_from: str
    def __init__(self, held_id: _Optional[int] = ..., reasons: _Optional[_Iterable[str]] = ..., size_bytes: _Optional[int] = ..., sop_instance_uid: _Optional[str] = ..., study_instance_uid: _Optional[str] = ..., label: _Optional[str] = ..., held_seconds: _Optional[int] = ..., received_from: _Optional[str] = ...) -> None: ...

class DecideHeldRequest(_message.Message):
    __slots__ = ("held_id", "release")
    HELD_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    held_id: int
    release: bool
    def __init__(self, held_id: _Optional[int] = ..., release: _Optional[bool] = ...) -> None: ...

class ListImportsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListImportsResponse(_message.Message):
    __slots__ = ("imports",)
    IMPORTS_FIELD_NUMBER: _ClassVar[int]
    imports: _containers.RepeatedCompositeFieldContainer[UnfinishedImport]
    def __init__(self, imports: _Optional[_Iterable[_Union[UnfinishedImport, _Mapping]]] = ...) -> None: ...

class UnfinishedImport(_message.Message):
    __slots__ = ("number", "sources", "operator", "begun_seconds", "is_running", "problem", "studies", "studies_total", "instances", "sealed_bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    BEGUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    IS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    STUDIES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SEALED_BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    sources: _containers.RepeatedScalarFieldContainer[str]
    operator: str
    begun_seconds: int
    is_running: bool
    problem: str
    studies: _containers.RepeatedCompositeFieldContainer[PartialStudy]
    studies_total: int
    instances: int
    sealed_bytes: int
    def __init__(self, number: _Optional[int] = ..., sources: _Optional[_Iterable[str]] = ..., operator: _Optional[str] = ..., begun_seconds: _Optional[int] = ..., is_running: _Optional[bool] = ..., problem: _Optional[str] = ..., studies: _Optional[_Iterable[_Union[PartialStudy, _Mapping]]] = ..., studies_total: _Optional[int] = ..., instances: _Optional[int] = ..., sealed_bytes: _Optional[int] = ...) -> None: ...

class PartialStudy(_message.Message):
    __slots__ = ("study_instance_uid", "patients", "instances")
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    study_instance_uid: str
    patients: _containers.RepeatedCompositeFieldContainer[Patient]
    instances: int
    def __init__(self, study_instance_uid: _Optional[str] = ..., patients: _Optional[_Iterable[_Union[Patient, _Mapping]]] = ..., instances: _Optional[int] = ...) -> None: ...

class DiscardImportRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class DiscardImportResponse(_message.Message):
    __slots__ = ("packages",)
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    packages: int
    def __init__(self, packages: _Optional[int] = ...) -> None: ...

class DecideHeldResponse(_message.Message):
    __slots__ = ("package_id",)
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    package_id: str
    def __init__(self, package_id: _Optional[str] = ...) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("study", "facility", "recipient", "note", "priority", "again", "origin", "include_held", "several_patients")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    FACILITY_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_HELD_FIELD_NUMBER: _ClassVar[int]
    SEVERAL_PATIENTS_FIELD_NUMBER: _ClassVar[int]
    study: str
    facility: str
    recipient: str
    note: str
    priority: str
    again: bool
    origin: str
    include_held: bool
    several_patients: bool
    def __init__(self, study: _Optional[str] = ..., facility: _Optional[str] = ..., recipient: _Optional[str] = ..., note: _Optional[str] = ..., priority: _Optional[str] = ..., again: _Optional[bool] = ..., origin: _Optional[str] = ..., include_held: _Optional[bool] = ..., several_patients: _Optional[bool] = ...) -> None: ...

class SendStudiesRequest(_message.Message):
    __slots__ = ("studies", "order")
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    studies: _containers.RepeatedScalarFieldContainer[str]
    order: SendRequest
    def __init__(self, studies: _Optional[_Iterable[str]] = ..., order: _Optional[_Union[SendRequest, _Mapping]] = ...) -> None: ...

class SendStudiesResponse(_message.Message):
    __slots__ = ("index", "sent", "error_code", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    sent: SendResponse
    error_code: str
    error: str
    def __init__(self, index: _Optional[int] = ..., sent: _Optional[_Union[SendResponse, _Mapping]] = ..., error_code: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("transfers", "known", "held_packages", "origin", "held", "unfinished_imports")
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    HELD_PACKAGES_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_IMPORTS_FIELD_NUMBER: _ClassVar[int]
    transfers: _containers.RepeatedCompositeFieldContainer[Transfer]
    known: _containers.RepeatedScalarFieldContainer[str]
    held_packages: _containers.RepeatedScalarFieldContainer[str]
    origin: str
    held: _containers.RepeatedCompositeFieldContainer[HeldInstance]
    unfinished_imports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, transfers: _Optional[_Iterable[_Union[Transfer, _Mapping]]] = ..., known: _Optional[_Iterable[str]] = ..., held_packages: _Optional[_Iterable[str]] = ..., origin: _Optional[str] = ..., held: _Optional[_Iterable[_Union[HeldInstance, _Mapping]]] = ..., unfinished_imports: _Optional[_Iterable[int]] = ...) -> None: ...

class ListTransfersRequest(_message.Message):
    __slots__ = ("open_only", "held_only", "limit")
    OPEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    HELD_ONLY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    open_only: bool
    held_only: bool
    limit: int
    def __init__(self, open_only: _Optional[bool] = ..., held_only: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class ListTransfersResponse(_message.Message):
    __slots__ = ("transfers",)
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    transfers: _containers.RepeatedCompositeFieldContainer[Transfer]
    def __init__(self, transfers: _Optional[_Iterable[_Union[Transfer, _Mapping]]] = ...) -> None: ...

class WatchTransfersRequest(_message.Message):
    __slots__ = ("numbers",)
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, numbers: _Optional[_Iterable[int]] = ...) -> None: ...

class WatchTransfersResponse(_message.Message):
    __slots__ = ("transfer",)
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    transfer: Transfer
    def __init__(self, transfer: _Optional[_Union[Transfer, _Mapping]] = ...) -> None: ...

class Transfer(_message.Message):
    __slots__ = ("transfer_id", "direction", "state", "peer", "peer_name", "study_instance_uid", "package_id", "priority", "bytes_done", "bytes_total", "bytes_carried", "instances", "reason", "recipient", "note", "created_seconds", "updated_seconds", "route", "plaintext_bytes", "bytes_a_second", "round_trip_milliseconds", "origin", "number", "deleted_seconds", "summary")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PEER_NAME_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_CARRIED_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    CREATED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BYTES_A_SECOND_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DELETED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    transfer_id: str
    direction: str
    state: str
    peer: str
    peer_name: str
    study_instance_uid: str
    package_id: str
    priority: str
    bytes_done: int
    bytes_total: int
    bytes_carried: int
    instances: int
    reason: str
    recipient: str
    note: str
    created_seconds: int
    updated_seconds: int
    route: str
    plaintext_bytes: int
    bytes_a_second: int
    round_trip_milliseconds: float
    origin: str
    number: int
    deleted_seconds: int
    summary: OfferSummary
    def __init__(self, transfer_id: _Optional[str] = ..., direction: _Optional[str] = ..., state: _Optional[str] = ..., peer: _Optional[str] = ..., peer_name: _Optional[str] = ..., study_instance_uid: _Optional[str] = ..., package_id: _Optional[str] = ..., priority: _Optional[str] = ..., bytes_done: _Optional[int] = ..., bytes_total: _Optional[int] = ..., bytes_carried: _Optional[int] = ..., instances: _Optional[int] = ..., reason: _Optional[str] = ..., recipient: _Optional[str] = ..., note: _Optional[str] = ..., created_seconds: _Optional[int] = ..., updated_seconds: _Optional[int] = ..., route: _Optional[str] = ..., plaintext_bytes: _Optional[int] = ..., bytes_a_second: _Optional[int] = ..., round_trip_milliseconds: _Optional[float] = ..., origin: _Optional[str] = ..., number: _Optional[int] = ..., deleted_seconds: _Optional[int] = ..., summary: _Optional[_Union[OfferSummary, _Mapping]] = ...) -> None: ...

class OfferSummary(_message.Message):
    __slots__ = ("patients", "study_instance_uid", "study_date", "description", "modalities", "accession_number")
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    STUDY_DATE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    ACCESSION_NUMBER_FIELD_NUMBER: _ClassVar[int]
    patients: _containers.RepeatedCompositeFieldContainer[Patient]
    study_instance_uid: str
    study_date: str
    description: str
    modalities: _containers.RepeatedScalarFieldContainer[str]
    accession_number: str
    def __init__(self, patients: _Optional[_Iterable[_Union[Patient, _Mapping]]] = ..., study_instance_uid: _Optional[str] = ..., study_date: _Optional[str] = ..., description: _Optional[str] = ..., modalities: _Optional[_Iterable[str]] = ..., accession_number: _Optional[str] = ...) -> None: ...

class CancelTransferRequest(_message.Message):
    __slots__ = ("transfer",)
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    transfer: str
    def __init__(self, transfer: _Optional[str] = ...) -> None: ...

class CancelTransferResponse(_message.Message):
    __slots__ = ("transfer",)
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    transfer: Transfer
    def __init__(self, transfer: _Optional[_Union[Transfer, _Mapping]] = ...) -> None: ...

class DecideOfferRequest(_message.Message):
    __slots__ = ("transfer", "accept", "reason")
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    transfer: str
    accept: bool
    reason: str
    def __init__(self, transfer: _Optional[str] = ..., accept: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class DecideOfferResponse(_message.Message):
    __slots__ = ("transfer",)
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    transfer: Transfer
    def __init__(self, transfer: _Optional[_Union[Transfer, _Mapping]] = ...) -> None: ...

class ListReceiptsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListReceiptsResponse(_message.Message):
    __slots__ = ("receipts",)
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    receipts: _containers.RepeatedCompositeFieldContainer[ReceiptRow]
    def __init__(self, receipts: _Optional[_Iterable[_Union[ReceiptRow, _Mapping]]] = ...) -> None: ...

class ReceiptRow(_message.Message):
    __slots__ = ("transfer_id", "direction", "peer", "peer_name", "study_instance_uid", "instances", "plaintext_bytes", "received_seconds", "reissued", "number", "deleted_seconds")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PEER_NAME_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REISSUED_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DELETED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    transfer_id: str
    direction: str
    peer: str
    peer_name: str
    study_instance_uid: str
    instances: int
    plaintext_bytes: int
    received_seconds: int
    reissued: bool
    number: int
    deleted_seconds: int
    def __init__(self, transfer_id: _Optional[str] = ..., direction: _Optional[str] = ..., peer: _Optional[str] = ..., peer_name: _Optional[str] = ..., study_instance_uid: _Optional[str] = ..., instances: _Optional[int] = ..., plaintext_bytes: _Optional[int] = ..., received_seconds: _Optional[int] = ..., reissued: _Optional[bool] = ..., number: _Optional[int] = ..., deleted_seconds: _Optional[int] = ...) -> None: ...

class ExportReceiptRequest(_message.Message):
    __slots__ = ("transfer",)
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    transfer: str
    def __init__(self, transfer: _Optional[str] = ...) -> None: ...

class ExportReceiptResponse(_message.Message):
    __slots__ = ("manifest_piece", "delivery", "receipt")
    MANIFEST_PIECE_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    manifest_piece: bytes
    delivery: bytes
    receipt: bytes
    def __init__(self, manifest_piece: _Optional[bytes] = ..., delivery: _Optional[bytes] = ..., receipt: _Optional[bytes] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("limit", "open_alarms", "study", "peer", "operator", "kind", "since_milliseconds", "until_milliseconds")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OPEN_ALARMS_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SINCE_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    limit: int
    open_alarms: bool
    study: str
    peer: str
    operator: str
    kind: str
    since_milliseconds: int
    until_milliseconds: int
    def __init__(self, limit: _Optional[int] = ..., open_alarms: _Optional[bool] = ..., study: _Optional[str] = ..., peer: _Optional[str] = ..., operator: _Optional[str] = ..., kind: _Optional[str] = ..., since_milliseconds: _Optional[int] = ..., until_milliseconds: _Optional[int] = ...) -> None: ...

class AcknowledgeAlarmsRequest(_message.Message):
    __slots__ = ("through_sequence",)
    THROUGH_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    through_sequence: int
    def __init__(self, through_sequence: _Optional[int] = ...) -> None: ...

class AcknowledgeAlarmsResponse(_message.Message):
    __slots__ = ("alarms",)
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    alarms: int
    def __init__(self, alarms: _Optional[int] = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("sequence", "time_milliseconds", "kind", "body", "operator", "digest")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time_milliseconds: int
    kind: str
    body: str
    operator: str
    digest: bytes
    def __init__(self, sequence: _Optional[int] = ..., time_milliseconds: _Optional[int] = ..., kind: _Optional[str] = ..., body: _Optional[str] = ..., operator: _Optional[str] = ..., digest: _Optional[bytes] = ...) -> None: ...

class VerifyAuditRequest(_message.Message):
    __slots__ = ("ask_witnesses", "head", "sequence", "digest")
    ASK_WITNESSES_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ask_witnesses: bool
    head: bytes
    sequence: int
    digest: bytes
    def __init__(self, ask_witnesses: _Optional[bool] = ..., head: _Optional[bytes] = ..., sequence: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class VerifyAuditResponse(_message.Message):
    __slots__ = ("entries", "head", "problem", "witnesses", "given_problem", "given_sequence", "silent")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    WITNESSES_FIELD_NUMBER: _ClassVar[int]
    GIVEN_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    GIVEN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    entries: int
    head: bytes
    problem: str
    witnesses: _containers.RepeatedCompositeFieldContainer[AuditWitness]
    given_problem: str
    given_sequence: int
    silent: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entries: _Optional[int] = ..., head: _Optional[bytes] = ..., problem: _Optional[str] = ..., witnesses: _Optional[_Iterable[_Union[AuditWitness, _Mapping]]] = ..., given_problem: _Optional[str] = ..., given_sequence: _Optional[int] = ..., silent: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditWitness(_message.Message):
    __slots__ = ("facility_id", "display_name", "sequence", "taken_seconds", "reported_seconds", "heard", "problem")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TAKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPORTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    display_name: str
    sequence: int
    taken_seconds: int
    reported_seconds: int
    heard: bool
    problem: str
    def __init__(self, facility_id: _Optional[str] = ..., display_name: _Optional[str] = ..., sequence: _Optional[int] = ..., taken_seconds: _Optional[int] = ..., reported_seconds: _Optional[int] = ..., heard: _Optional[bool] = ..., problem: _Optional[str] = ...) -> None: ...

class GetAuditHeadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAuditHeadResponse(_message.Message):
    __slots__ = ("head", "sequence", "digest", "time_milliseconds", "facility_id")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIME_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    sequence: int
    digest: bytes
    time_milliseconds: int
    facility_id: str
    def __init__(self, head: _Optional[bytes] = ..., sequence: _Optional[int] = ..., digest: _Optional[bytes] = ..., time_milliseconds: _Optional[int] = ..., facility_id: _Optional[str] = ...) -> None: ...

class AcceptPeerLogRequest(_message.Message):
    __slots__ = ("facility",)
    FACILITY_FIELD_NUMBER: _ClassVar[int]
    facility: str
    def __init__(self, facility: _Optional[str] = ...) -> None: ...

class AcceptPeerLogResponse(_message.Message):
    __slots__ = ("display_name", "heads")
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    display_name: str
    heads: int
    def __init__(self, display_name: _Optional[str] = ..., heads: _Optional[int] = ...) -> None: ...
