"""Simulated nodes of a network: what a directory sees of a node, and nothing else of one."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from emix.directory.v1 import directory_pb2 as pb

from directory_service.operator import OperatorKey
from node.crypto.certificates import DIRECTORY_NAME, fingerprint, make_tls_identity
from node.crypto.digests import sha256
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.identity import Identity, Profile, make_statements
from node.documents.network import Listing, claim, sign_listing
from node.documents.signed import certify_node
from node.rpc.bounds import Bound
from node.rpc.calling import KEEPALIVE_OPTIONS, Channel, open_channel
from node.rpc.credentials import client_credentials
from node.rpc.methods import methods

_ANSWER = Bound(4 * 2**20, fields=64 * 1024)
METHODS = {
    m.name: m for m in methods(pb.DESCRIPTOR.services_by_name["DirectoryService"], answer=_ANSWER)
}


class SimulatedNode:
    """One node of one facility, invited by an operator."""

    def __init__(self, n: int, operator: OperatorKey) -> None:
        self._root = operator.root_certificate
        self._key = SigningKey.new()
        signer = certify_node(SigningKey.new(), self._key, time.time())
        tls = make_tls_identity(node_id(self._key.public), time.time())
        name = f"Clinic {n} of Somewhere"
        profile = Profile(name, (f"node{n}.example.org:7410",), (), int(time.time()))
        self._statements = make_statements(
            self._key, signer, [tls.certificate_der], SealKey.new().public, profile
        )
        listing = Listing(f"City {n % 300}", ("CT", "MR"), issued_seconds=int(time.time()))
        self._listing = sign_listing(self._key, Identity.decode(self._statements), listing)
        letter = operator.invite(name, time.time())
        self._membership = claim(letter, signer.facility_key, time.time()).encoded
        self.facility = signer.facility_id
        self.known_list = b""  # the digest of the newest list that it has
        self.metadata: tuple[tuple[str, str], ...] = ()

    async def _call(self, channel: Channel, name: str, request: Any) -> Any:
        return await channel.unary(METHODS[name], request, timeout=120, metadata=self.metadata)

    async def _login(self, channel: Channel, challenge: bytes = b"") -> pb.LoginRequest:
        if not challenge:
            asked = pb.GetChallengeRequest()
            challenge = (await self._call(channel, "GetChallenge", asked)).challenge
        proof = pb.LoginProof(
            challenge=challenge, root_digest=fingerprint(self._root)
        ).SerializeToString()
        signature = self._key.sign("directory-login", proof)
        return pb.LoginRequest(
            statements=self._statements,
            proof=proof,
            signature=signature,
            listing_digest=sha256(self._listing),
        )

    async def join(self, channel: Channel) -> None:
        """Use the node's invitation."""
        login = await self._login(channel)
        await self._call(channel, "Join", pb.JoinRequest(membership=self._membership, login=login))

    async def come(self, channel: Channel) -> None:
        """Compare lists, log in and announce, as a node does when it connects."""
        asked = pb.GetNetworkRequest(known_list=self.known_list)
        shown = await self._call(channel, "GetNetwork", asked)
        answer = await self._call(channel, "Login", await self._login(channel, shown.challenge))
        self.metadata = (("emix-session", answer.session),)
        if answer.again_seconds:
            return  # it is announced already
        request = pb.AnnounceRequest(statements=self._statements, listing=self._listing)
        await self._call(channel, "Announce", request)


@asynccontextmanager
async def connected(operator: OperatorKey, address: str) -> AsyncGenerator[Channel]:
    """Open a connection of its own to a directory, for the time of the block."""
    async with open_channel(
        address,
        credentials=client_credentials(None, [operator.root_certificate]),
        server_name=DIRECTORY_NAME,
        # One connection a node, not one for all of them.
        options=(*KEEPALIVE_OPTIONS, ("grpc.use_local_subchannel_pool", 1)),
        largest_answer=_ANSWER.size,
    ) as channel:
        yield channel
