"""A node that says hostile things in every field that it has, and what no terminal may get."""

import re
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from node.domain.query import ATTRIBUTES
from node.rpc.serving import Call, Service, allow_all, serve
from tests.support.loop import call_soon, run

HOSTILE = "1.2\x1b]52;c;aGk=\x07\x1b[2J\x9b2J\u202e\u2066\x00\nFORGED LINE\r\x85\u2028"
"""Clipboard, screen, 8-bit control, direction, NUL, and a line of its own."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
Handler = Callable[[Call[Any]], Awaitable[Any]]


def is_harmless(text: str) -> bool:
    """Return whether a terminal shows text and does nothing; our own colours are no text."""
    plain = _COLOURS.sub("", text)
    is_forged = any(line.lstrip().startswith("FORGED") for line in plain.splitlines())
    return not is_forged and all(c.isprintable() or c == "\n" for c in plain)


def filled(kind: Descriptor, choice: int = 0, depth: int = 4) -> Message:
    """Return a message with something hostile in every field; `choice` is made of each oneof."""
    message: Message = GetMessageClass(kind)()
    chosen = {o.fields[choice % len(o.fields)].name for o in kind.oneofs}
    for field in kind.fields:
        if field.containing_oneof is not None and field.name not in chosen:
            continue
        _fill(message, field, choice, depth)
    return message


def _fill(message: Message, field: FieldDescriptor, choice: int, depth: int) -> None:
    value: Any
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update(dict.fromkeys([*ATTRIBUTES, HOSTILE], HOSTILE))
        return
    if field.message_type is not None:
        if depth == 0:
            return
        value = filled(field.message_type, choice, depth - 1)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        value = HOSTILE.encode() if field.type == FieldDescriptor.TYPE_BYTES else HOSTILE
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        value = choice % 2 == 1
    else:
        value = 1
    if field.is_repeated:
        getattr(message, field.name).append(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


@contextmanager
def hostile_node(socket: Path, services: Iterable[ServiceDescriptor]) -> Generator[None]:
    """Serve these services, whose every answer is hostile, for the time of the block."""
    with node_that(_handler, socket, services):
        yield


@contextmanager
def node_that(
    handler: Callable[[Any], Handler], socket: Path, services: Iterable[ServiceDescriptor]
) -> Generator[None]:
    """Serve these services, each method as `handler` has it, for the time of the block."""
    hostile = [Service(s, {m.name: handler(m) for m in s.methods}, allow_all) for s in services]
    stop, serves = trio.Event(), threading.Event()

    async def work() -> None:
        async with serve(hostile, f"unix:{socket}"):
            serves.set()
            await stop.wait()

    with ThreadPoolExecutor(1) as thread:  # commands want the main thread, for their signals
        served = thread.submit(run, work)
        assert serves.wait(30)
        try:
            yield
        finally:
            call_soon(stop.set)
            served.result(30)


def _handler(method: Any) -> Handler:
    async def answer(call: Call[Any]) -> Any:
        if not method.server_streaming:
            return filled(method.output_type)
        for choice in range(6):
            await call.write(filled(method.output_type, choice))
        return None

    return answer
