"""Client of other nodes' introduction services: statements, and pairing by short string.

The channel authenticates nothing; only the signature chain in the statements does. gRPC for
Python cannot skip the verification of a server certificate. So the client first fetches the
certificate over unverified TLS, and then uses it as the channel's root.
"""

from collections.abc import Sequence

import trio
from emix.introduction.v1 import introduction_pb2 as pb

from node.crypto.certificates import node_in, server_name
from node.documents.identity import Identity
from node.domain.ids import FacilityId
from node.errors import PeerUnreachable, PeerUntrusted
from node.federation.routes.dialing import Dialer, within_tls
from node.rpc.calling import open_channel
from node.rpc.credentials import client_credentials
from node.rpc.methods import Method, Request, Response, method

_SERVICE = pb.DESCRIPTOR.services_by_name["IntroductionService"]
_GET = method(_SERVICE, "GetStatements", pb.GetStatementsRequest, pb.GetStatementsResponse)
_PRESENT = method(_SERVICE, "Present", pb.PresentRequest, pb.PresentResponse)
_BEGIN = method(_SERVICE, "BeginString", pb.BeginStringRequest, pb.BeginStringResponse)
_OPEN = method(_SERVICE, "OpenString", pb.OpenStringRequest, pb.OpenStringResponse)
CALL_SECONDS = 10.0


class IntroductionClient:
    """Calls introduction services."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    async def fetch_statements(self, address: str) -> Identity:
        """Return the verified statements of the node at an address.

        The caller must check the Facility ID.

        Raises:
            PeerUnreachable: nobody answers there.
            DocumentError: the statements do not verify, or the answer is not a node's.
        """
        response = await self._call(address, _GET, pb.GetStatementsRequest())
        return Identity.decode(response.statements)

    async def present_statements(
        self, address: str, statements: bytes, memberships: Sequence[bytes]
    ) -> None:
        """Show our statements to a node at an address.

        Raises:
            PeerUnreachable: nobody answers there.
            PeerUntrusted: it has not paired with us, or has removed us.
        """
        request = pb.PresentRequest(statements=statements, memberships=memberships)
        await self._call(address, _PRESENT, request)

    async def begin_string(self, address: str, commitment: bytes) -> tuple[bytes, bytes, Identity]:
        """Commit to our nonce at a node; return attempt, its nonce, its statements."""
        request = pb.BeginStringRequest(commitment=commitment)
        response = await self._call(address, _BEGIN, request)
        return response.attempt, response.nonce, Identity.decode(response.statements)

    async def open_string(
        self, address: str, attempt: bytes, nonce: bytes, statements: bytes
    ) -> None:
        """Open our commitment at a node."""
        request = pb.OpenStringRequest(attempt=attempt, nonce=nonce, statements=statements)
        await self._call(address, _OPEN, request)

    async def renewed(self, address: str, facility: FacilityId) -> Identity:
        """Return a pinned facility's present statements.

        Raises:
            PeerUntrusted: another facility answers at its address.
        """
        identity = await self.fetch_statements(address)
        if identity.facility_id != facility:
            raise PeerUntrusted(
                f"another facility ({identity.facility_id.short()}) answers at its address"
            )
        return identity

    async def _call(
        self, address: str, rpc: Method[Request, Response], request: Request
    ) -> Response:
        der, at = await self._server_certificate(address)
        try:
            name = server_name(node_in(der))
        except ValueError as exc:
            raise PeerUnreachable(f"no node answers at {address}") from exc
        async with open_channel(
            at,
            credentials=client_credentials(None, [der]),
            server_name=name,
            options=self._dialer.grpc_options(at),
        ) as channel:
            return await channel.unary(rpc, request, timeout=CALL_SECONDS)

    async def _server_certificate(self, address: str) -> tuple[bytes, str]:
        """Return the certificate shown at an address, and at which address of a name that was."""
        raw = await self._dialer.connect(address)
        at = self._dialer.where(raw, address)
        stream = await within_tls(raw, address)
        der = stream.peer_certificate
        await trio.aclose_forcefully(stream)
        if der is None:
            raise PeerUnreachable(f"no node answers at {address}")
        return der, at
