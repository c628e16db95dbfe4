"""Calls of admin services without a server, and the facilities that their answers name."""

import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import trio
from google.protobuf.message import Message

from node.documents.peers import Peer
from node.domain.actors import Actor, Visitor
from node.errors import NotFound, PeerUnreachable
from node.exchange.membership.facilities import Facilities
from node.rpc.serving import Service
from tests.support.members import ME, Member
from tests.support.recorded import Recorded

Log = list[tuple[str, tuple[Any, ...]]]


class AdminCall:
    """A call, and what was written to it; its caller leaves after `leaves_after` messages."""

    def __init__(
        self,
        *requests: Message,
        uid: int | None = None,
        log: Log | None = None,
        leaves_after: int | None = None,
    ) -> None:
        self.caller = Visitor(os.geteuid() if uid is None else uid, "alice", 1)
        self.metadata = {"emix-operator": "Dr. Alice"}
        self.request = requests[0] if requests else None
        self.got: list[Any] = []
        self._requests = deque(requests)
        self._log: Log = [] if log is None else log
        self._leaves_after = leaves_after

    @property
    def actor(self) -> Actor:
        """Who asks, as it has to be recorded."""
        return self.caller.actor("Dr. Alice")

    async def read(self) -> Any:
        await trio.lowlevel.checkpoint()
        return self._requests.popleft() if self._requests else None

    async def write(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if self._leaves_after == len(self.got):
            raise PeerUnreachable("the caller's connection is gone")
        copy = type(message)()  # as gRPC does: what the handler changes later is not sent
        copy.CopyFrom(message)
        self.got.append(copy)
        self._log.append(("written", (copy,)))


async def answers(service: Service, method: str, call: AdminCall) -> list[Any]:
    """Have a service answer a call; return all its responses, also of a method that has one."""
    handed: Any = call
    response = await service.handlers[method](handed)
    if service.descriptor.methods_by_name[method].server_streaming:
        assert response is None
        return call.got
    assert not call.got
    assert response is not None
    response.SerializeToString()
    return [response]


async def answer(service: Service, method: str, call: AdminCall) -> Any:
    """Have a service answer a call with its only response."""
    (only,) = await answers(service, method, call)
    return only


def paged(log: Log, name: str, *pages: list[Any]) -> Callable[..., AsyncGenerator[list[Any]]]:
    """Return a method that yields pages; notes that it was called, and that it ended."""

    async def rows(*args: Any, **more: Any) -> AsyncGenerator[list[Any]]:
        log.append((name, (*args, *more.values())))
        try:
            for page in pages:
                await trio.lowlevel.checkpoint()
                yield page
        finally:
            log.append((f"{name} ended", ()))

    return rows


def peer_of(member: Member, *, removed: float | None = None, **more: Any) -> Peer:
    """Return a member as a person has pinned it."""
    peer = Peer(member.record().identity, "", "id", "alice", 1000.5, removed, 2000.5)
    return replace(peer, **more)


class _Trust:
    def __init__(self, peers: tuple[Peer, ...], why_not: str) -> None:
        self.peers = {peer.facility_id: peer for peer in peers}
        self._why_not = why_not

    def is_trusted(self, peer: Peer) -> bool:
        return not peer.is_removed and not self._why_not

    def why_not(self, _: Peer) -> str:
        return self._why_not


def facilities_of(*peers: Peer, why_not: str = "") -> Facilities:
    """Return the facilities that one knows which has pinned some peers."""
    book: Any = Recorded(all=list(peers))
    members: Any = Recorded(check_one_name=None, meet=NotFound("nobody is called so"))
    return Facilities(ME.facility, "Great Falls", _Trust(peers, why_not), book, members)
