from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcknowledgeAlarmsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcknowledgeAlarmsResponse(_message.Message):
    __slots__ = ("alarms",)
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    alarms: int
    def __init__(self, alarms: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("name", "network_id", "endpoint", "software", "facilities", "nodes", "online", "list_number", "list_expires_seconds", "certificate_expires_seconds", "started_seconds", "alarms", "relay_endpoint", "relay_pairs", "relay_open_pairs", "relay_bytes", "relay_refused", "list_epoch")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    FACILITIES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    LIST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    LIST_EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STARTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    RELAY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    RELAY_PAIRS_FIELD_NUMBER: _ClassVar[int]
    RELAY_OPEN_PAIRS_FIELD_NUMBER: _ClassVar[int]
    RELAY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RELAY_REFUSED_FIELD_NUMBER: _ClassVar[int]
    LIST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    name: str
    network_id: str
    endpoint: str
    software: str
    facilities: int
    nodes: int
    online: int
    list_number: int
    list_expires_seconds: int
    certificate_expires_seconds: int
    started_seconds: int
    alarms: _containers.RepeatedScalarFieldContainer[str]
    relay_endpoint: str
    relay_pairs: int
    relay_open_pairs: int
    relay_bytes: int
    relay_refused: int
    list_epoch: int
    def __init__(self, name: _Optional[str] = ..., network_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., software: _Optional[str] = ..., facilities: _Optional[int] = ..., nodes: _Optional[int] = ..., online: _Optional[int] = ..., list_number: _Optional[int] = ..., list_expires_seconds: _Optional[int] = ..., certificate_expires_seconds: _Optional[int] = ..., started_seconds: _Optional[int] = ..., alarms: _Optional[_Iterable[str]] = ..., relay_endpoint: _Optional[str] = ..., relay_pairs: _Optional[int] = ..., relay_open_pairs: _Optional[int] = ..., relay_bytes: _Optional[int] = ..., relay_refused: _Optional[int] = ..., list_epoch: _Optional[int] = ...) -> None: ...

class ListFacilitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListFacilitiesResponse(_message.Message):
    __slots__ = ("facilities",)
    FACILITIES_FIELD_NUMBER: _ClassVar[int]
    facilities: _containers.RepeatedCompositeFieldContainer[Facility]
    def __init__(self, facilities: _Optional[_Iterable[_Union[Facility, _Mapping]]] = ...) -> None: ...

class Facility(_message.Message):
    __slots__ = ("facility_id", "name", "standing", "joined_seconds", "nodes", "online", "city", "software")
    FACILITY_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    JOINED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    CITY_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    facility_id: str
    name: str
    standing: str
    joined_seconds: int
    nodes: int
    online: int
    city: str
    software: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, facility_id: _Optional[str] = ..., name: _Optional[str] = ..., standing: _Optional[str] = ..., joined_seconds: _Optional[int] = ..., nodes: _Optional[int] = ..., online: _Optional[int] = ..., city: _Optional[str] = ..., software: _Optional[_Iterable[str]] = ...) -> None: ...
