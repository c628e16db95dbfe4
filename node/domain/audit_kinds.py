"""What can happen that the audit log records, and what each kind of entry means."""

from collections.abc import Mapping
from types import MappingProxyType

from rapidfuzz import process

from node.errors import UsageError

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "alarm.audit-log": "a facility keeps a head that this log contradicts",
        "alarm.clock": "the clock jumped and is not trusted",
        "alarm.directory": "a directory presented something that does not verify",
        "alarm.envelopes-without-rows": "the database is older than packages in the store",
        "alarm.equivocation": "a sender signed two manifests for one package",
        "alarm.peer": "a peer presented something that does not verify",
        "alarm.peer-audit-log": "a peer's audit log does not continue its earlier one",
        "alarm.transfer": "a transfer failed for good",
        "alarm.transfer-overdue": "a transfer has not ended in its time",
        "audit.acknowledged": "somebody has seen the open alarms",
        "audit.peer-accepted": "somebody accepted a peer's audit log that was restored",
        "catalogue.queried": "somebody searched by attributes",
        "clock.confirmed": "somebody confirmed the clock",
        "held.discarded": "somebody deleted a held instance",
        "held.listed": "somebody was shown held instances",
        "held.released": "somebody released a held instance",
        "import.discarded": "somebody deleted an unfinished import",
        "imports.listed": "somebody was shown unfinished imports",
        "instance.held": "an imported instance is held",
        "keys.epoch-begun": "an epoch key was made; packages are wrapped under it from now on",
        "keys.epoch-rotated": "all packages are under a new epoch key; earlier ones are destroyed",
        "keys.seal-rotated": "the key that senders seal to was replaced",
        "keys.shredded": "the same, and nothing that was deleted can be opened any more",
        "network.joined": "this facility joined a network",
        "network.left": "this facility left a network",
        "network.list": "a network's newer list was accepted",
        "node.backed-up": "somebody made a backup",
        "node.made": "this node was made",
        "node.renewed": "the facility certified this node anew",
        "node.replaced": "this node replaced an earlier one of its facility",
        "node.settings-changed": "settings were read again, and differ",
        "node.started": "the node started",
        "node.stopped": "the node stopped",
        "offer.accepted": "somebody accepted an offer that waited",
        "offer.declined": "somebody declined an offer that waited",
        "offer.received": "a peer offered a package",
        "offers.listed": "somebody was shown offers",
        "package.closed": "an import or a release made a package",
        "package.deleted": "somebody deleted a package",
        "package.expired": "retention deleted a package",
        "package.mended": "a lost chunk was sealed again from the same files",
        "package.repaired": "a package's rows were made from its envelope",
        "peer.pinned": "a facility was paired",
        "peer.removed": "a facility was removed",
        "peer.renewed": "a paired facility has new statements",
        "receipt.exported": "somebody exported a receipt",
        "receipt.late": "a receipt came for a transfer that had ended",
        "receipts.listed": "somebody was shown receipts",
        "retention.announced": "retention will delete a package in a week",
        "retention.listed": "somebody was shown what retention will delete",
        "store.chunks-moved": "all chunks have moved to their new place",
        "study.exported": "somebody exported a study",
        "study.shown": "somebody was shown a study",
        "transfer.deleted-there": "a receiver says that it deleted what was sent",
        "transfer.delivered": "a receiver's receipt was kept",
        "transfer.offered": "somebody had a package sent",
        "transfer.received": "a package has arrived, and its receipt was given",
        "transfers.forgotten": "records of old transfers were deleted",
    }
)
"""By kind; an entry of another is a defect."""


def check_beginning(text: str) -> None:
    """Check that some kind of entry begins so; anything does where it is empty.

    Raises:
        UsageError: none does; the message names those that look like it.
    """
    if any(kind.startswith(text) for kind in KINDS):
        return
    close = [kind for kind, *_ in process.extract(text, list(KINDS), limit=3, score_cutoff=60)]
    meant = f"; perhaps {', '.join(close)}" if close else ""
    raise UsageError(
        f"no entry of the audit log is of this kind{meant}. `emix audit kinds` lists all kinds"
    )
