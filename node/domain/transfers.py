"""The states of a transfer and its priorities, as both sides and the commands name them."""

import enum
from dataclasses import dataclass

from node.domain.connections import Route
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.summary import Summary


class Direction(enum.StrEnum):
    """Which way a transfer goes, seen from here."""

    SEND = "send"
    RECEIVE = "receive"


class Priority(enum.IntEnum):
    """How urgent a delivery is; a lower number goes first."""

    STAT = 0
    URGENT = 1
    ROUTINE = 2


OVERDUE_SECONDS = {
    Priority.STAT: 15 * 60.0,
    Priority.URGENT: 2 * 3600.0,
    Priority.ROUTINE: 24 * 3600.0,
}
"""By priority: after how long an undelivered or undecided transfer is overdue."""


class State(enum.StrEnum):
    """Where a transfer stands.

    The last four are final: a transfer in one of them never moves again.
    """

    PENDING = "pending"  # the sender has not reached the receiver yet
    HELD = "held"  # the receiver's policy waits for a person
    CARRYING = "carrying"  # chunks are on their way
    CHECKING = "checking"  # all chunks are there; the last are being opened and checked
    DELIVERED = "delivered"  # the receipt is signed and kept
    DECLINED = "declined"  # a person at the receiver said no
    CANCELLED = "cancelled"  # the sender took it back
    FAILED = "failed"  # it cannot succeed; the reason says why

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to this transfer."""
        return self in _FINAL


_FINAL = frozenset({State.DELIVERED, State.DECLINED, State.CANCELLED, State.FAILED})

_NEXT: dict[State, frozenset[State]] = {
    State.PENDING: frozenset(State) - {State.PENDING},
    State.HELD: frozenset({State.CARRYING, State.DECLINED, State.CANCELLED, State.FAILED}),
    State.CARRYING: frozenset(
        {State.CHECKING, State.DELIVERED, State.DECLINED, State.CANCELLED, State.FAILED}
    ),
    State.CHECKING: frozenset(
        {State.CARRYING, State.DELIVERED, State.DECLINED, State.CANCELLED, State.FAILED}
    ),
}


SMALL_BYTES = 4 * 2**20
"""Sealed bytes of a small package: of its transfer nothing is recorded between begin and end."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What went over a link and is not recorded yet.

    Attributes:
        bytes: Sealed bytes, repeats included.
        seconds: For how long.
        route: How the peer was reached; None if that is recorded.
    """

    bytes: int = 0
    seconds: float = 0.0
    route: Route | None = None


NOTHING_CARRIED = Carried()


def can_follow(state: State, following: State) -> bool:
    """Return whether a transfer may go from one state to the other."""
    return following in _NEXT.get(state, frozenset())


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transfer as it now stands.

    Attributes:
        id: Its number in this store.
        peer: The other side: receiver of what we send, sender of what we receive.
        study_uid: Empty at a receiver that has no manifest yet.
        accepted: Whether a person accepted a held offer.
        delivery: The encoded delivery document; `delivery_digest` names it.
        sealed_key: The package's data key sealed to the receiver.
        receipt: The encoded receipt document, once there is one.
        manifest_digest: Names the manifest kept beside it, the third document of the proof.
        bytes_done: Sealed bytes durable at the receiver, of `bytes_total`.
        withdrawal_pending: It was cancelled here, and the receiver does not know that yet.
        bytes_carried: Sealed bytes that went over links, repeats included.
        route: The last route to the peer: lan, direct, dial-back, relay; empty if none yet.
        carried_seconds: For how long bytes went over links.
        deleted_time: When the receiver deleted what it gave a receipt for, as it says; 0 if never.
        summary: What an offer to us is, in its sender's words, while it waits for a person.
    """

    id: int
    transfer_id: TransferId
    direction: Direction
    peer: FacilityId
    origin: FacilityId
    package_id: PackageId
    study_uid: str
    priority: Priority
    state: State
    reason: str
    accepted: bool
    delivery: bytes
    delivery_digest: bytes
    sealed_key: bytes
    receipt: bytes | None
    manifest_digest: bytes | None
    bytes_total: int
    bytes_done: int
    bytes_carried: int
    instances: int
    plaintext_bytes: int
    recipient: str
    note: str
    created_time: float
    updated_time: float
    expires_time: float
    received_time: float
    withdrawal_pending: bool
    route: str
    carried_seconds: float
    deleted_time: float = 0.0
    summary: Summary | None = None

    @property
    def name(self) -> str:
        """Its number here as people write it. The id is the sender's, and may be used twice."""
        return f"t{self.id}"

    def is_overdue(self, now: float) -> bool:
        """Whether it should have been delivered by now, or decided by a person here."""
        if self.state.is_final or now < self.created_time + OVERDUE_SECONDS[self.priority]:
            return False
        if self.direction is Direction.SEND:
            return True
        return self.state is State.HELD and not self.accepted

    @property
    def bytes_a_second(self) -> float:
        """Sealed bytes a second while links carried them; 0 until it is known."""
        return self.bytes_carried / self.carried_seconds if self.carried_seconds else 0.0


def transfer_facts(row: Transfer) -> dict[str, object]:
    """Return the facts of an audit entry about a transfer.

    They name the transfer by its number, since the sender chooses its id, and its content and peer.
    """
    return {
        "transfer": str(row.transfer_id),
        "number": row.id,
        "direction": row.direction,
        "peer": str(row.peer),
        "study": row.study_uid,
        "origin": str(row.origin),
        "package": str(row.package_id),
    }
