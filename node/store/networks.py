"""Networks that this facility has joined, and every revocation in force in them."""

import json
import math

from node.documents.lists import open_list
from node.documents.network import JoinLetter, Membership, Network, open_membership
from node.domain.actors import Actor
from node.domain.ids import InvitationId, NetworkId
from node.domain.network import NetworkView
from node.errors import NotFound
from node.sql.database import Db
from node.store import audit_rows
from node.store.context import StoreContext
from node.system import clock


class NetworkStore:
    """The networks."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database

    async def all(self) -> list[Network]:
        """Return all networks, in the order in which they were joined."""
        return await self._database.read(
            lambda db: [
                _row(db, row) for row in db.query("SELECT * FROM networks ORDER BY joined_time")
            ]
        )

    async def add(self, letter: JoinLetter, membership: Membership, actor: Actor) -> None:
        """Keep a network that the facility has joined; joining again replaces the membership.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        network = letter.invitation.network

        def work(db: Db) -> None:
            db.execute(
                "INSERT INTO networks (network, name, network_key, endpoints, root_certificate,"
                " membership, joined_time) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (network) DO UPDATE SET name = excluded.name,"
                " endpoints = excluded.endpoints, root_certificate = excluded.root_certificate,"
                " membership = excluded.membership, joined_time = excluded.joined_time",
                (
                    network.digest,
                    letter.network_name,
                    letter.network_key,
                    json.dumps(letter.endpoints),
                    letter.root_certificate,
                    membership.encoded,
                    clock.now(),
                ),
            )
            facts: dict[str, object] = {"network": str(network), "name": letter.network_name}
            audit_rows.append(db, "network.joined", facts, actor)

        await self._database.write(work)

    async def keep_view(self, network: NetworkId, view: NetworkView, encoded: bytes) -> None:
        """Keep what is known of a network after a newer list; durable once this returns."""

        def work(db: Db) -> None:
            db.execute("UPDATE networks SET list = ? WHERE network = ?", (encoded, network.digest))
            known = _revocations(db, network.digest)
            stands = {invitation: invitation in view.final for invitation in view.revoked}
            for invitation in known.keys() - stands.keys():  # those of an epoch that has ended
                db.execute(
                    "DELETE FROM revocations WHERE network = ? AND invitation = ?",
                    (network.digest, invitation.digest),
                )
            now = clock.now()
            for invitation, is_final in stands.items():
                if known.get(invitation) is not is_final:
                    db.execute(
                        "INSERT INTO revocations (network, invitation, seen_time, is_final)"
                        " VALUES (?, ?, ?, ?) ON CONFLICT (network, invitation)"
                        " DO UPDATE SET is_final = excluded.is_final",
                        (network.digest, invitation.digest, now, int(is_final)),
                    )
            epoch, number = view.place
            facts: dict[str, object] = {"network": str(network), "epoch": epoch, "number": number}
            audit_rows.append(db, "network.list", facts)

        await self._database.write(work)

    async def leave(self, network: NetworkId, actor: Actor) -> None:
        """Forget a network.

        Durable once this returns; cancelled, it was done whole or not at all.

        Raises:
            NotFound: the facility has not joined it.
        """

        def work(db: Db) -> None:
            sql = "DELETE FROM networks WHERE network = ?"
            if not db.execute(sql, (network.digest,)).rowcount:
                raise NotFound("this facility is not in that network")
            audit_rows.append(db, "network.left", {"network": str(network)}, actor)

        await self._database.write(work)

    async def alarm(self, network: NetworkId, problem: str) -> None:
        """Record that a directory showed what it should not have, unless that is an open alarm."""
        facts: dict[str, object] = {"network": str(network), "problem": problem}
        await self._database.write(lambda db: audit_rows.alarm(db, "alarm.directory", facts))


def _row(db: Db, row: dict[str, object]) -> Network:
    key, network = bytes(row["network_key"]), bytes(row["network"])  # type: ignore[call-overload]
    encoded = row["list"]
    # Whether it was from the future was decided when it was kept; a clock set back changes nothing.
    signed = encoded if isinstance(encoded, bytes) else b""
    latest = open_list(signed, key, math.inf) if signed else None
    revoked = _revocations(db, network)
    membership = open_membership(bytes(row["membership"]), key)  # type: ignore[call-overload]
    view = NetworkView(
        latest,
        frozenset(revoked),
        frozenset(invitation for invitation, is_final in revoked.items() if is_final),
        membership.invitation.list_epoch,
    )
    return Network(
        name=str(row["name"]),
        network_key=key,
        endpoints=tuple(json.loads(str(row["endpoints"]))),
        root_certificate=bytes(row["root_certificate"]),  # type: ignore[call-overload]
        membership=membership,
        view=view,
        joined_time=float(str(row["joined_time"])),
        signed_list=signed,
    )


def _revocations(db: Db, network: bytes) -> dict[InvitationId, bool]:
    """Return the revocations that stand, and whether each is final."""
    sql = "SELECT invitation, is_final FROM revocations WHERE network = ?"
    return {
        InvitationId(found["invitation"]): bool(found["is_final"])
        for found in db.query(sql, (network,))
    }
