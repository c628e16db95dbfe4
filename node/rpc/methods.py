"""RPC methods as values, read from the protobuf descriptors; no generated service code."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from node.rpc.bounds import SMALL, Bound, parse

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One RPC: its path and the classes of its messages.

    Attributes:
        answer: What we read of a response at most, as a caller. What we read of a request is said
            where it is served: see `node.rpc.serving.Service`.
    """

    path: str
    request: type[Request]
    response: type[Response]
    is_request_stream: bool
    is_response_stream: bool
    answer: Bound = SMALL

    @property
    def name(self) -> str:
        """The RPC's name in its service."""
        return self.path.rpartition("/")[2]

    def parse_answer(self, data: bytes) -> Response:
        """Return the response in `data`; see `node.rpc.bounds.parse`."""
        return parse(self.response, data, self.answer)


def encoded(message: Message | bytes) -> bytes:
    """Return a message's bytes, as gRPC sends them."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def method(
    service: ServiceDescriptor,
    name: str,
    request: type[Request],
    response: type[Response],
    *,
    answer: Bound = SMALL,
) -> Method[Request, Response]:
    """Return one method of a service, with its classes held against the descriptor."""
    descriptor = service.methods_by_name[name]
    found = _from_descriptor(descriptor, answer)
    if found.request is not request or found.response is not response:
        raise TypeError(f"{name} has other messages")
    return found


def methods(service: ServiceDescriptor, *, answer: Bound = SMALL) -> Iterator[Method[Any, Any]]:
    """Yield all methods of a service."""
    for descriptor in service.methods:
        yield _from_descriptor(descriptor, answer)


def _from_descriptor(descriptor: MethodDescriptor, answer: Bound) -> Method[Any, Any]:
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        is_request_stream=descriptor.client_streaming,
        is_response_stream=descriptor.server_streaming,
        answer=answer,
    )
