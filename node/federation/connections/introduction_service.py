"""The introduction service, for first contact: open to anyone.

The channel authenticates nothing; only the signature chain in the statements does.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from emix.introduction.v1 import introduction_pb2 as pb

from node.documents.identity import Identity
from node.errors import PeerUntrusted
from node.federation.connections.peer_service import PeerStatements, Statements, decode_statements
from node.rpc.limits import RateLimit, caller_origin
from node.rpc.serving import Call, Service

_SERVICE = pb.DESCRIPTOR.services_by_name["IntroductionService"]
_CALLS_A_MINUTE = 30
_CALLS_A_MINUTE_IN_ALL = 300


class StringPairings(PeerStatements, Protocol):
    """Pairs by short string; `node.exchange.membership.pairing` does."""

    def begin_string(self, commitment: bytes) -> tuple[bytes, bytes]:
        """Answer a commitment with an attempt's name and our nonce."""

    async def open_string(self, attempt: bytes, nonce: bytes, identity: Identity) -> None:
        """Take an opened commitment."""


class IntroductionService:
    """Handlers of the introduction service."""

    def __init__(
        self,
        statements: Statements,
        strings: StringPairings,
        presented: Callable[[Identity, Sequence[bytes]], Awaitable[bool]],
    ) -> None:
        """Prepare; `presented` processes presented statements, and returns False for strangers."""
        self._statements = statements
        self._strings = strings
        self._presented = presented
        self._rate = RateLimit(_CALLS_A_MINUTE, in_all=_CALLS_A_MINUTE_IN_ALL)

    def service(self) -> Service:
        """Return the service to serve; its guard only counts."""
        handlers = {
            "GetStatements": self._get,
            "Present": self._present_call,
            "BeginString": self._begin,
            "OpenString": self._open,
        }
        return Service(_SERVICE, handlers, self._guard)

    async def _guard(self, call: Call[None]) -> None:
        self._rate.count(caller_origin(call.address))

    async def _get(self, _: Call[None]) -> pb.GetStatementsResponse:
        return pb.GetStatementsResponse(statements=self._statements())

    async def _present_call(self, call: Call[None]) -> pb.PresentResponse:
        identity = await decode_statements(self._strings, call.request.statements)
        if not await self._presented(identity, call.request.memberships):
            raise PeerUntrusted("not paired with this facility")
        return pb.PresentResponse()

    async def _begin(self, call: Call[None]) -> pb.BeginStringResponse:
        attempt, nonce = self._strings.begin_string(call.request.commitment)
        return pb.BeginStringResponse(attempt=attempt, nonce=nonce, statements=self._statements())

    async def _open(self, call: Call[None]) -> pb.OpenStringResponse:
        identity = await decode_statements(self._strings, call.request.statements)
        await self._strings.open_string(call.request.attempt, call.request.nonce, identity)
        return pb.OpenStringResponse()
