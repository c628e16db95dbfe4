"""The metrics that are read at each request of the metrics page."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from node.federation.connections.supervisor import Federation
from node.federation.connections.trust import Trust
from node.rpc.warden import Warden
from node.store.heads import HeadStore
from node.store.maintenance import Maintenance
from node.system import clock
from node.telemetry.metrics import Gauges

_COUNTS = {
    "studies": "Studies in the store",
    "instances": "Instances in the store",
    "sealed_bytes": "Sealed bytes in the store",
    "free_bytes": "Free bytes for chunks, without the reserve",
    "lost_chunks": "Chunks that are missing or damaged on this disk",
    "unopened_chunks": "Chunks that were not opened and checked since they were sealed",
    "held_instances": "Held instances, which wait for a person's decision",
    "unfinished_imports": "Imports that are running or unfinished",
    "alarms": "Alarms in the audit log that nobody has acknowledged",
}


class NodeGauges:
    """Reads the metrics. Create it in trio's thread; it is called on the HTTP server's threads.

    The database is read on the calling thread; state that the node's tasks change is read in
    trio's thread.
    """

    def __init__(
        self,
        home: Path,
        maintenance: Maintenance,
        heads: HeadStore,
        trust: Trust,
        federation: Federation,
        doors: Sequence[Warden],
    ) -> None:
        self._home = home
        self._maintenance = maintenance
        self._heads = heads
        self._trust = trust
        self._federation = federation
        self._doors = doors
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self) -> Gauges:
        """Return the metrics by name: their meaning, and values by labels."""
        counts = self._maintenance.counts_sync()
        states = trio.from_thread.run_sync(self._peer_states, trio_token=self._token)
        gauges: dict[str, Any] = {
            name: (text, {(): float(counts[name])}) for name, text in _COUNTS.items()
        }
        if self._maintenance.chunk_place:
            del gauges["free_bytes"]  # nobody knows how much an object store takes
        transfers = self._maintenance.transfers_sync()
        gauges["transfers"] = (
            "Transfers by direction and state",
            {(("direction", d), ("state", s)): float(n) for (d, s), n in transfers.items()},
        )
        gauges |= self._storage_gauges()
        gauges["peers"] = (
            "Paired facilities by state of their connection",
            {(("state", state),): float(n) for state, n in states.items()},
        )
        gauges["connections_ended"] = (
            "Connections closed since the start: too many, or unidentified too long",
            {(): float(sum(door.ended for door in self._doors))},
        )
        confirmed = self._heads.confirmed_sync()
        gauges["audit_unconfirmed_seconds"] = (
            "Age of the oldest audit entry that no other facility confirms; 0 if there is none",
            {(): confirmed.unconfirmed_seconds(clock.now())},
        )
        gauges["audit_contradictions"] = (
            "Heads of the audit log at other facilities that contradict the log",
            {(): float(confirmed.contradictions)},
        )
        return gauges

    def _storage_gauges(self) -> Gauges:
        """Return what concerns the disk, and the object store if chunks are in one."""
        found: dict[str, Any] = {
            "disk_free_bytes": (
                "Free bytes on the disk of the home, including the reserve",
                {(): float(shutil.disk_usage(self._home).free)},
            )
        }
        asked = self._maintenance.chunk_requests()
        if not asked:
            return found
        labels = {kind: (("operation", kind[0]), ("outcome", kind[1])) for kind in asked}
        found["chunk_requests"] = (
            "Requests to the object store since the start",
            {labels[kind]: float(made.count) for kind, made in asked.items()},
        )
        found["chunk_request_seconds"] = (
            "Total seconds of the requests to the object store since the start, with retries",
            {labels[kind]: made.seconds for kind, made in asked.items()},
        )
        return found

    def _peer_states(self) -> Counter[str]:
        peers = [p for p in self._trust.peers.values() if not p.is_removed]
        return Counter(self._federation.connection(p.facility_id).state for p in peers)
