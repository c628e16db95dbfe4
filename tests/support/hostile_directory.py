"""A directory that somebody broke into: it answers and tells whatever a test has it."""

import secrets
from dataclasses import dataclass, field
from typing import Any

import trio
from emix.directory.v1 import directory_pb2 as pb

from directory_service.operator import OperatorKey
from node.documents.network import Membership, open_membership
from node.errors import Conflict, NotFound, PeerUntrusted
from node.rpc.serving import Call, Handler, Service, allow_all

_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryService"]


@dataclass
class HostileDirectory:
    """Answers as it is told to."""

    operator: OperatorKey
    joined: list[Membership] = field(default_factory=list)
    statements: bytes = b""
    listing: bytes = b""
    shown_list: bytes = b""
    found: list[pb.NodeRecord] = field(default_factory=list)
    challenge: bytes = b""  # the same for everybody; empty for a new one each time
    ticket: bytes = b""  # what is given to whoever asks for one
    has_let_in_another: bool = False  # with the node's invitation
    watching: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.tell, self._told = trio.open_memory_channel[pb.WatchResponse | None](100)

    def service(self) -> Service:
        async def get_network(_: Call[Any]) -> pb.GetNetworkResponse:
            return pb.GetNetworkResponse(
                network_key=self.operator.network_key, list=self.shown_list
            )

        async def get_challenge(_: Call[Any]) -> pb.GetChallengeResponse:
            return pb.GetChallengeResponse(challenge=self.challenge or secrets.token_bytes(56))

        async def login(_: Call[Any]) -> pb.LoginResponse:
            if self.has_let_in_another:
                raise PeerUntrusted("no member")
            return pb.LoginResponse(session="session", lifetime_seconds=3600)

        async def join(call: Call[Any]) -> pb.JoinResponse:
            if self.has_let_in_another:
                raise Conflict("the invitation was used by another facility")
            key = self.operator.network_key
            self.joined.append(open_membership(call.request.membership, key))
            return pb.JoinResponse()

        async def announce(call: Call[Any]) -> pb.AnnounceResponse:
            self.statements, self.listing = call.request.statements, call.request.listing
            return pb.AnnounceResponse(again_seconds=3000)

        async def find(_: Call[Any]) -> pb.FindResponse:
            return pb.FindResponse(records=self.found)

        async def lookup(_: Call[Any]) -> pb.LookupResponse:
            return pb.LookupResponse(records=self.found)

        async def watch(call: Call[Any]) -> None:
            self.watching.set()
            while True:
                message: pb.WatchResponse | None = pb.WatchResponse()  # it looks alive
                with trio.move_on_after(5):
                    message = await self._told.receive()
                if message is None:
                    return
                await call.write(message)

        async def nothing(_: Call[Any]) -> pb.AskDialBackResponse:
            return pb.AskDialBackResponse()

        async def ask_ticket(_: Call[Any]) -> pb.AskTicketResponse:
            if not self.ticket:
                raise NotFound("no relay")
            return pb.AskTicketResponse(ticket=self.ticket)

        async def publish(_: Call[Any]) -> pb.PublishResponse:
            return pb.PublishResponse()

        async def no_memberships(_: Call[Any]) -> None:
            return None

        handlers: dict[str, Handler] = {
            "GetNetwork": get_network,
            "GetChallenge": get_challenge,
            "Login": login,
            "Join": join,
            "Announce": announce,
            "Find": find,
            "Lookup": lookup,
            "Watch": watch,
            "AskDialBack": nothing,
            "AskTicket": ask_ticket,
            "Publish": publish,
            "ListMemberships": no_memberships,
        }
        return Service(_SERVICE, handlers, allow_all)
