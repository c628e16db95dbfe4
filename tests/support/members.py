"""Members of a network, as its directories show them."""

import time

from node.crypto.certificates import make_tls_identity
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, network_id, node_id
from node.documents.identity import Identity, Profile, make_statements
from node.documents.network import (
    JoinLetter,
    Listing,
    Membership,
    Record,
    claim,
    invite,
    open_record,
    sign_listing,
)
from node.documents.signed import certify_node
from node.domain.ids import FacilityId, InvitationId

KEY = SigningKey.new()
NETWORK = network_id(KEY.public)
NOW = time.time()


class Member:
    """A facility with a node in the network."""

    def __init__(self, name: str, city: str = "Helena") -> None:
        self.name, self.city = name, city
        self.facility_key, self.node_key = SigningKey.new(), SigningKey.new()
        self.signer = certify_node(self.facility_key, self.node_key, NOW)
        self.tls = make_tls_identity(node_id(self.node_key.public), NOW)
        self.seal = SealKey.new().public
        self.letter, self.membership = self.invited()

    def invited(self) -> tuple[JoinLetter, Membership]:
        invitation, token = invite(KEY, self.name, NOW)
        letter = JoinLetter(invitation, token, KEY.public, "Montana", ("h:1",), b"root")
        return letter, self.claimed(letter)

    def claimed(self, letter: JoinLetter) -> Membership:
        return claim(letter, self.facility_key.public, NOW)

    @property
    def facility(self) -> FacilityId:
        return self.membership.facility_id

    @property
    def invitation(self) -> InvitationId:
        return self.membership.invitation.id

    def record(self, issued: int = 1000, endpoint: str = "h:1") -> Record:
        profile = Profile(self.name, (endpoint,), (), issued)
        statements = make_statements(
            self.node_key, self.signer, [self.tls.certificate_der], self.seal, profile
        )
        listing = Listing(city=self.city, departments=("MR",), issued_seconds=issued)
        signed = sign_listing(self.node_key, Identity.decode(statements), listing)
        encoded = self.membership.encoded
        return open_record(statements, signed, encoded, KEY.public, is_online=True)


ME, BILLINGS, HELENA = (
    Member("Me"),
    Member("Billings Hospital", "Billings"),
    Member("St. Peter's Health"),
)
