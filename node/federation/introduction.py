"""First contact: served to anyone, trusting nobody; and asking others.

The channel proves nothing here: only the signature chain in the statements does. A caller
cannot skip verification in gRPC for Python, so it fetches the server's certificate with the
standard library first, and uses that as the channel's root.
"""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio
from emix.introduction.v1 import introduction_pb2 as pb

from node.crypto.certificates import name_in, pem_to_der
from node.documents.identity import Identity
from node.domain.ids import FacilityId
from node.errors import PeerUnreachable, PeerUntrusted
from node.federation.server import Statements
from node.rpc.calling import open_channel
from node.rpc.credentials import client_credentials
from node.rpc.limits import RateLimit
from node.rpc.methods import Method, Request, Response, method
from node.rpc.serving import Call, Service

_SERVICE = pb.DESCRIPTOR.services_by_name["IntroductionService"]
_GET = method(_SERVICE, "GetStatements", pb.GetStatementsRequest, pb.GetStatementsResponse)
_PRESENT = method(_SERVICE, "Present", pb.PresentRequest, pb.PresentResponse)
_BEGIN = method(_SERVICE, "BeginString", pb.BeginStringRequest, pb.BeginStringResponse)
_OPEN = method(_SERVICE, "OpenString", pb.OpenStringRequest, pb.OpenStringResponse)
CALL_SECONDS = 10.0
# Threads that wait for somebody else's DNS names must not be those that the store needs.
_THREADS = trio.CapacityLimiter(8)

_CALLS_A_MINUTE = 30
_CALLS_A_MINUTE_IN_ALL = 300


class StringPairings(Protocol):
    """Pairs by short string; `node.exchange.pairing` does."""

    def begin_string(self, commitment: bytes) -> tuple[bytes, bytes]:
        """Answer a commitment with an attempt's name and our nonce."""

    async def open_string(self, attempt: bytes, nonce: bytes, identity: Identity) -> None:
        """Take an opened commitment."""


class IntroductionServer:
    """Handlers of the introduction service."""

    def __init__(
        self,
        statements: Statements,
        strings: StringPairings,
        presented: Callable[[Identity, Sequence[bytes]], Awaitable[bool]],
    ) -> None:
        """Prepare; `presented` takes what peers and members show, and refuses anyone else."""
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
        self._rate.count(call.address)

    async def _get(self, _: Call[None]) -> pb.GetStatementsResponse:
        return pb.GetStatementsResponse(statements=self._statements())

    async def _present_call(self, call: Call[None]) -> pb.PresentResponse:
        identity = Identity.decode(call.request.statements)
        if not await self._presented(identity, call.request.memberships):
            raise PeerUntrusted("not paired with this facility")
        return pb.PresentResponse()

    async def _begin(self, call: Call[None]) -> pb.BeginStringResponse:
        attempt, nonce = self._strings.begin_string(call.request.commitment)
        return pb.BeginStringResponse(attempt=attempt, nonce=nonce, statements=self._statements())

    async def _open(self, call: Call[None]) -> pb.OpenStringResponse:
        identity = Identity.decode(call.request.statements)
        await self._strings.open_string(call.request.attempt, call.request.nonce, identity)
        return pb.OpenStringResponse()


async def fetch_statements(address: str) -> Identity:
    """Return the verified statements that a node at an address gives. Whose they are, look!

    Raises:
        PeerUnreachable: nobody answers there.
        DocumentError: what answers is no node, or its statements do not verify.
    """
    response = await _call(address, _GET, pb.GetStatementsRequest())
    return Identity.decode(response.statements)


async def present_statements(address: str, statements: bytes, memberships: Sequence[bytes]) -> None:
    """Show our statements to a node at an address.

    Raises:
        PeerUnreachable: nobody answers there.
        PeerUntrusted: it has not paired with us, or has removed us.
    """
    request = pb.PresentRequest(statements=statements, memberships=memberships)
    await _call(address, _PRESENT, request)


async def begin_string(address: str, commitment: bytes) -> tuple[bytes, bytes, Identity]:
    """Commit to our nonce at a node; return attempt, its nonce, its statements."""
    response = await _call(address, _BEGIN, pb.BeginStringRequest(commitment=commitment))
    return response.attempt, response.nonce, Identity.decode(response.statements)


async def open_string(address: str, attempt: bytes, nonce: bytes, statements: bytes) -> None:
    """Open our commitment at a node."""
    request = pb.OpenStringRequest(attempt=attempt, nonce=nonce, statements=statements)
    await _call(address, _OPEN, request)


async def renewed(address: str, facility: FacilityId) -> Identity:
    """Return a pinned facility's present statements.

    Raises:
        PeerUntrusted: another facility answers at its address.
    """
    identity = await fetch_statements(address)
    if identity.facility_id != facility:
        raise PeerUntrusted(
            f"another facility ({identity.facility_id.short()}) answers at its address"
        )
    return identity


async def _call(address: str, rpc: Method[Request, Response], request: Request) -> Response:
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(CALL_SECONDS):
            pem = await trio.to_thread.run_sync(
                _server_certificate,
                host.strip("[]"),
                int(port),
                abandon_on_cancel=True,
                limiter=_THREADS,
            )
        der = pem_to_der(pem.encode())
        name = name_in(der)
    except (OSError, ValueError, OverflowError, trio.TooSlowError) as exc:
        raise PeerUnreachable(f"no node answers at {address}") from exc
    credentials = client_credentials(None, [der])
    async with open_channel(address, credentials=credentials, server_name=name) as channel:
        return await channel.unary(rpc, request, timeout=CALL_SECONDS)


def _server_certificate(host: str, port: int) -> str:
    return ssl.get_server_certificate((host, port), timeout=CALL_SECONDS)
