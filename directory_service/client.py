"""The operator's calls to a directory, made from the machine that has the key."""

from collections.abc import Generator
from contextlib import contextmanager

from emix.directory.v1 import directory_pb2 as pb

from directory_service.operator import OperatorKey
from node.crypto.certificates import DIRECTORY_NAME, fingerprint
from node.documents.lists import MAX_LIST_BYTES, MAX_MEMBERS
from node.documents.network import Membership, open_membership
from node.errors import PeerTimeout, PeerUnreachable, PeerUntrusted, RemoteProtocolError
from node.rpc.blocking import BlockingChannel, open_blocking_channel
from node.rpc.bounds import Bound
from node.rpc.credentials import client_credentials
from node.rpc.methods import method
from node.rpc.pieces import pieces

_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryService"]
_WHOLE_LIST = Bound(MAX_LIST_BYTES + 16 * 1024)
_GET_NETWORK = method(_SERVICE, "GetNetwork", pb.GetNetworkRequest, pb.GetNetworkResponse)
_GET_CHALLENGE = method(_SERVICE, "GetChallenge", pb.GetChallengeRequest, pb.GetChallengeResponse)
_PUBLISH = method(_SERVICE, "Publish", pb.PublishRequest, pb.PublishResponse)
_MEMBERSHIPS = method(
    _SERVICE,
    "ListMemberships",
    pb.ListMembershipsRequest,
    pb.ListMembershipsResponse,
    answer=_WHOLE_LIST,
)

CALL_SECONDS = 30.0
_MEMBERSHIPS_SECONDS = 120.0
_MOST_MEMBERSHIPS = 4 * MAX_MEMBERS


class OperatorClient:
    """Calls with an operator's key. Open it with `open_operator_client`."""

    def __init__(self, channel: BlockingChannel, key: OperatorKey) -> None:
        self._channel = channel
        self._key = key

    def check_network(self) -> None:
        """Check that the directory is this network's; `PeerUntrusted` if it is another's."""
        found = self._channel.unary(_GET_NETWORK, pb.GetNetworkRequest(), timeout=CALL_SECONDS)
        if found.network_key != self._key.network_key:
            raise PeerUntrusted("the directory at this address belongs to another network")

    def members(self) -> tuple[bytes, list[Membership]]:
        """Return the list and the memberships, which the directory shows only to a list signer.

        Returns:
            The newest list, not verified yet, empty for none; and all memberships, verified.

        Raises:
            RemoteProtocolError: there are more than a network can have.
        """
        asked = pb.GetChallengeRequest()
        challenge = self._channel.unary(_GET_CHALLENGE, asked, timeout=CALL_SECONDS).challenge
        proof = pb.LoginProof(
            challenge=challenge, root_digest=fingerprint(self._key.root_certificate)
        ).SerializeToString()
        request = pb.ListMembershipsRequest(
            proof=proof,
            signature=self._key.key.sign("directory-login", proof),
            list_key_cert=self._key.certificate,
        )
        encoded, found = b"", list[Membership]()
        with self._channel.stream(_MEMBERSHIPS, request, timeout=_MEMBERSHIPS_SECONDS) as answers:
            for one in answers:
                if one.list:
                    encoded = one.list
                if not one.membership:
                    continue
                found.append(open_membership(one.membership, self._key.network_key))
                if len(found) > _MOST_MEMBERSHIPS:
                    raise RemoteProtocolError(
                        f"the directory sent more than {_MOST_MEMBERSHIPS} memberships"
                    )
        return encoded, found

    def publish(self, encoded: bytes) -> None:
        """Publish a signed list."""
        requests = (pb.PublishRequest(list=piece) for piece in pieces(encoded))
        self._channel.bring(_PUBLISH, requests, timeout=CALL_SECONDS)


@contextmanager
def open_operator_client(key: OperatorKey) -> Generator[OperatorClient]:
    """Connect to the network's directory, at the first of its addresses that answers.

    Raises:
        PeerUnreachable: none does.
    """
    credentials = client_credentials(None, [key.root_certificate])
    for endpoint in key.endpoints:
        with open_blocking_channel(
            endpoint,
            credentials=credentials,
            server_name=DIRECTORY_NAME,
            largest_answer=_WHOLE_LIST.size,
        ) as channel:
            client = OperatorClient(channel, key)
            try:
                client.check_network()
            except (PeerUnreachable, PeerTimeout):
                continue
            yield client
            return
    raise PeerUnreachable(f"no directory answers at {', '.join(key.endpoints)}")
