"""The checks of `emix doctor`."""

import grp
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import trio

from node.app.home import Home, load_keyring
from node.app.moving_chunks import moving_finding
from node.crypto.certificates import validity, why_not_valid
from node.dicom.examiner import Examiner
from node.documents.identity import Identity
from node.documents.network import Network
from node.documents.peers import alike_warning
from node.domain.audit import alarm_text
from node.domain.connections import ConnectionState, Route
from node.domain.findings import Finding
from node.domain.heads import Confirmed
from node.domain.network import Standing
from node.errors import StoreError
from node.exchange.membership.networks import Networks
from node.federation.connections.supervisor import Federation
from node.federation.connections.trust import Trust
from node.federation.directory.directories import Directories
from node.outside.copies import DATABASE
from node.sandbox.confine import LAYERS
from node.sql.database import EARLIER_SECONDS, earlier_path, sqlite_version
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.heads import HeadStore
from node.store.imports import ImportStore
from node.store.lost import count_lost
from node.store.retention import Outlook, RetentionStore
from node.system import clock, safe_paths
from node.version import SOFTWARE

_CONNECT_SECONDS = 3.0
_STORAGE_SECONDS = 10.0
_STORAGE_ADVICE = "nothing is stored, sent or exported until it answers; see docs/operations.md"
_LOW_BYTES = 5 * 2**30
_DAY = 86400.0
_NAMED = 5
_SEARCHED_BY_GROUP = stat.S_IXGRP
_WARN_DAYS, _URGENT_DAYS = 60, 14  # before the facility's certificate for the node key ends


class Doctor:
    """Checks a running node."""

    def __init__(
        self,
        home: Home,
        context: StoreContext,
        audit: AuditStore,
        heads: HeadStore,
        trust: Trust,
        federation: Federation,
        examiner: Examiner,
        networks: Networks,
        directories: Directories,
        retention: RetentionStore,
        imports: ImportStore,
        admin_group: str,
        announced: Callable[[], Mapping[str, Sequence[str]]],
    ) -> None:
        """Prepare; `announced` returns the addresses that peers are told, by service.

        `admin_group` is the group whose people may use the node; empty for none.
        """
        self._imports = imports
        self._admin_group = admin_group
        self._networks = networks
        self._directories = directories
        self._retention = retention
        self._home = home
        self._context = context
        self._audit = audit
        self._heads = heads
        self._trust = trust
        self._federation = federation
        self._examiner = examiner
        self._announced = announced

    async def diagnose(self, *, is_quick: bool) -> list[Finding]:
        """Return a finding for each check; quick checks make no connections."""
        local = await trio.to_thread.run_sync(list, self._local())
        if not is_quick:
            local += await self._ask_storage()
        local += moving_finding(self._context.storage)
        ports = [] if is_quick else await self._ports()
        networks = [self._network(network) for network in self._networks.all()]
        unfinished = await self._unfinished()
        # `emix status`, the quick caller, lists the alarms itself.
        alarms = [] if is_quick else await self._alarms()
        return [_clock(), *alarms, *local, *unfinished, *ports, *networks, *self._peers()]

    async def _alarms(self) -> list[Finding]:
        found = await self._audit.open_alarms()
        if not found:
            return []
        text = f"{len(found)} not acknowledged; the newest: {alarm_text(found[-1])}"
        advice = "`emix audit --alarms` shows them; once you have acted: `emix audit acknowledge`"
        return [Finding("alarms", "problem", text, advice)]

    async def _unfinished(self) -> list[Finding]:
        found = await self._imports.list_imports()
        numbers = [str(one.id) for one, is_running in found if not is_running]
        if not numbers:
            return []
        text = f"{len(numbers)} not finished: {', '.join(numbers[:_NAMED])}"
        advice = "`emix imports` lists them; resume or discard each"
        return [Finding("imports", "warning", text, advice)]

    def _local(self) -> Iterator[Finding]:
        yield self._disk()
        yield self._chunks()
        yield self._permissions()
        yield from self._admins()
        yield from self._slots()
        yield self._certificate()
        yield self._node_certificate()
        yield _audit_log(self._heads.confirmed_sync(), clock.now())
        yield Finding("versions", "ok", _versions())
        yield from self._upgrade()
        yield from self._parsers()
        if self._retention.days:
            yield _retention(self._retention.days, self._retention.outlook_sync())

    async def _ports(self) -> list[Finding]:
        """Try to connect from here to all addresses that peers are told, at once."""
        announced = [(name, at) for name, places in self._announced().items() for at in places]
        found: dict[tuple[str, str], Finding] = {}

        async def look(name: str, address: str) -> None:
            found[name, address] = await _port(name, address)

        async with trio.open_nursery() as nursery:
            for name, address in announced:
                nursery.start_soon(look, name, address)
        return [found[place] for place in announced]

    def _chunks(self) -> Finding:
        lost = self._context.database.read_sync(count_lost)
        if not lost:
            return Finding("chunks", "ok", "no missing or damaged chunk is known")
        return Finding(
            "chunks",
            "problem",
            f"{lost} are missing or damaged in the store",
            "import the same files again, or ask the sender to run `emix send --again`, which"
            " sends missing chunks only; `emix store check --read-data` finds further damage",
        )

    async def _ask_storage(self) -> list[Finding]:
        """Check the chunk storage, with a shorter time limit than its own calls have."""
        with trio.move_on_after(_STORAGE_SECONDS):
            return await trio.to_thread.run_sync(
                list, self._chunk_storage(), abandon_on_cancel=True
            )
        text = f"{self._context.storage.where()} has not answered in {_STORAGE_SECONDS:.0f} s"
        return [Finding("chunk storage", "problem", text, _STORAGE_ADVICE)]

    def _chunk_storage(self) -> Iterator[Finding]:
        storage = self._context.storage
        if not storage.where():
            return  # the disk's finding says it
        begun = time.monotonic()
        try:
            storage.check()
        except StoreError as exc:
            yield Finding("chunk storage", "problem", str(exc), _STORAGE_ADVICE)
        else:
            milliseconds = (time.monotonic() - begun) * 1000
            text = f"{storage.where()} answers in {milliseconds:.0f} ms"
            yield Finding("chunk storage", "ok", text)
        if storage.is_open():
            text = "the connection is plain HTTP: others can see when and how much is kept and read"
            advice = "name its endpoint with https:// in emix.toml"
            yield Finding("chunk storage", "warning", text, advice)

    def _upgrade(self) -> Iterator[Finding]:
        """Say that the database of before an upgrade is kept."""
        earlier = earlier_path(self._home.root / DATABASE)
        with suppress(FileNotFoundError):
            end = time.localtime(earlier.stat().st_mtime + EARLIER_SECONDS)
            text = f"{earlier.name}, the earlier database, is kept until {time.strftime('%F', end)}"
            yield Finding("upgrade", "ok", text)

    def _disk(self) -> Finding:
        free = shutil.disk_usage(self._home.root).free
        if not self._context.storage.free_bytes():
            advice = "free space, or lower reserve_mib in emix.toml"
            text = f"{free / 2**30:.1f} GiB free, all of it in the reserve: nothing can be stored"
            return Finding("disk", "problem", text, advice)
        if free < _LOW_BYTES:
            advice = "free space, or move the home to a larger disk"
            return Finding("disk", "warning", f"{free / 2**30:.1f} GiB free", advice)
        return Finding("disk", "ok", f"{free / 2**30:.0f} GiB free")

    def _admins(self) -> Iterator[Finding]:
        """Report the users of the admin group."""
        if not self._admin_group:
            return
        try:
            members = grp.getgrnam(self._admin_group).gr_mem
        except KeyError:
            text = f"this machine has no group {self._admin_group!r} any more"
            advice = "change or empty [admin] group in emix.toml, and restart the node"
            yield Finding("admin group", "problem", text, advice)
            return
        own = safe_paths.user_name(os.geteuid())
        people = sorted(set(members) - {own})
        names = ", ".join(people[:_NAMED]) + (" and others" if people[_NAMED:] else "")
        yield Finding("admin group", "ok", f"{self._admin_group}: {names or 'nobody listed'}")

    def _permissions(self) -> Finding:
        root = self._home.root
        searched = _SEARCHED_BY_GROUP if self._admin_group else 0  # it is how the group comes in
        allowed = {root: searched, self._home.keyring: 0, self._home.host_key: 0}
        wrong = [
            str(path)
            for path, bits in allowed.items()
            if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077 & ~bits
        ]
        if wrong:
            names = ", ".join(wrong)
            advice = "run chmod go= on each"
            if searched:
                advice += f"; the home itself: chmod u=rwx,g=x,o= {root}"
            return Finding("permissions", "problem", f"others may read {names}", advice)
        if foreign := self._foreign():
            text = f"{foreign[0]} belongs to {safe_paths.user_text(foreign[0].stat().st_uid)}"
            more = f", and so do {len(foreign) - 1} more" if foreign[1:] else ""
            advice = f"as root, run: chown -R {safe_paths.user_name(os.geteuid())} {root}"
            return Finding("permissions", "problem", text + more, advice)
        if os.geteuid() == 0:
            advice = "run the node as a user of its own"
            return Finding("permissions", "warning", "the node runs as root", advice)
        return Finding("permissions", "ok", "only the node's user can read its home")

    def _foreign(self) -> list[Path]:
        """Return files in the home that another user owns, for example after a command as root."""
        root = self._home.root
        found = sorted({*root.iterdir(), *self._context.storage.folders()})
        return [p for p in found if p.lstat().st_uid != os.geteuid() and p.name != "lost+found"]

    def _slots(self) -> Iterator[Finding]:
        kinds = [str(slot.get("type")) for slot in load_keyring(self._home).slots]
        if "host" in kinds:
            yield Finding(
                "keys",
                "warning",
                "the host key is on the same disk: it protects backups, not a stolen machine",
                "set a passphrase if the machine itself could be stolen: emix passphrase",
            )
        else:
            yield Finding("keys", "ok", f"slots: {', '.join(kinds)}")

    def _certificate(self) -> Finding:
        _, end = validity(self._trust.snapshot().identity.certificate_der)
        days = (end - clock.now()) / _DAY
        if days < 19:
            advice = "automatic renewal has failed: check the node's log and the disk"
            return Finding("certificate", "warning", f"{days:.0f} days left", advice)
        return Finding("certificate", "ok", f"{days:.0f} days left")

    def _node_certificate(self) -> Finding:
        days = (self._context.signer.signer.verified().expires_seconds - clock.now()) / _DAY
        advice = "renew it with the recovery kit: emix node renew"
        if days < _URGENT_DAYS:
            text = "expired: peers refuse this node" if days <= 0 else f"{days:.0f} days left"
            return Finding("node certificate", "problem", text, advice)
        level = "warning" if days < _WARN_DAYS else "ok"
        return Finding(
            "node certificate", level, f"{days:.0f} days left", advice if level != "ok" else ""
        )

    def _parsers(self) -> Iterator[Finding]:
        for layer, meaning in LAYERS.items():
            why = self._examiner.denied.get(layer)
            if why is None:
                yield Finding(f"parsers: {layer}", "ok", meaning)
            else:
                text = f"the kernel denies it ({why}): {meaning}"
                advice = "see Confinement in docs/operations.md; the other layers are in force"
                yield Finding(f"parsers: {layer}", "warning", text, advice)

    def _network(self, network: Network) -> Finding:
        subject = f"network {network.name}"
        standing = network.standing(clock.now())
        text = f"this facility is {standing.value}"
        state = self._directories.state(network.id)
        match standing:
            case Standing.REVOKED | Standing.OTHER_FACILITY:
                advice = "contact the network's operator, or leave the network: emix networks leave"
                return Finding(subject, "problem", text, advice)
            case Standing.LIST_EXPIRED:
                text = "the network's signed list has expired"
                advice = "ask the network's operator to sign a new list; paired facilities go on"
                return Finding(subject, "problem", text, advice)
            case Standing.PROVISIONAL:
                advice = "ask the network's operator to sign the next list"
                return Finding(subject, "warning", text, advice)
        if state.state is not ConnectionState.CONNECTED:
            advice = "known facilities can still be reached; check its address and the firewall"
            text = f"its directory is {state.state}: {state.problem or 'connecting'}"
            return Finding(subject, "warning", text, advice)
        return Finding(subject, "ok", f"a member; directory {state.endpoint} connected")

    def _peers(self) -> Iterator[Finding]:
        for peer in self._trust.peers.values():
            if peer.is_removed:
                continue
            subject = f"peer {peer.name}"
            if warning := alike_warning(peer, self._trust.peers.values()):
                advice = f"its Facility ID is {peer.facility_id}; remove the wrong one of the two"
                yield Finding(subject, "warning", warning, advice)
            connection = self._federation.connection(peer.facility_id)
            certificates = peer.identity.valid_certificates(clock.now())
            distrusted = self._trust.why_not(peer)
            if distrusted:
                advice = "pair with it, or ask its network's operator"
                yield Finding(subject, "warning", f"not trusted now: {distrusted}", advice)
            elif not certificates:
                yield _outdated(subject, peer.identity)
            elif connection.is_inbound_only:
                route = Route.RELAY if Route.RELAY in connection.inbound else Route.DIAL_BACK
                yield Finding(subject, "ok", f"connected, {route}: it has dialled this node")
            elif connection.state is ConnectionState.CONNECTED:
                software = connection.software or "software unknown"
                yield Finding(subject, "ok", f"connected, {connection.route}; {software}")
            else:
                text = connection.problem or "not connected"
                advice = "check the network and the firewall, and have the peer run emix doctor"
                if "not paired" in text:
                    advice = "ask the other side to pair with this facility: emix peers pair"
                yield Finding(subject, "warning", text, advice)


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "pydicom", "numpy"))
    python = platform.python_version()
    return f"{SOFTWARE}, Python {python}, {packages}, SQLCipher with SQLite {sqlite_version()}"


async def _port(name: str, address: str) -> Finding:
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(_CONNECT_SECONDS):  # for its name, too
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
        await stream.aclose()
    except (OSError, ValueError, OverflowError, trio.TooSlowError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "no answer"
        text = f"the announced address {address} cannot be reached from here ({why})"
        advice = "announce another address in emix.toml, unless only this machine cannot reach it"
        return Finding(name, "warning", text, advice)
    return Finding(name, "ok", f"{address} answers from here; only a peer can test it from outside")


def _audit_log(log: Confirmed, now: float) -> Finding:
    subject = "audit log"
    if log.contradictions:
        text = f"it contradicts {log.contradictions} of its heads that other facilities keep"
        return Finding(subject, "problem", text, "see emix audit verify --witnesses")
    if not log.witnesses:
        text = "no other facility keeps its heads; store one elsewhere: emix audit head"
        return Finding(subject, "ok", text)
    text = f"confirmed up to entry {log.sequence} of {log.entries}"
    if log.unconfirmed_seconds(now) > _DAY:
        advice = "no peer has confirmed the later entries for more than a day: see emix peers"
        return Finding(subject, "warning", text, advice)
    return Finding(subject, "ok", f"{text}, by {log.witnesses} facilities at most")


def _retention(days: int, outlook: Outlook) -> Finding:
    subject, advice = "retention", "for the list and the dates: emix retention --dry-run"
    kept = f"{outlook.unseen} that nobody has viewed or exported are kept"
    if outlook.announced:
        when = "in a week or more"
        if outlook.first_time:
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(outlook.first_time))
        text = f"{outlook.announced} packages older than {days} days will be deleted from {when} on"
        return Finding(subject, "warning", f"{text}; {kept}" if outlook.unseen else text, advice)
    if outlook.unseen:
        return Finding(subject, "warning", f"of packages older than {days} days, {kept}", advice)
    return Finding(subject, "ok", f"nothing that was received is older than {days} days")


def _clock() -> Finding:
    judged = clock.CLOCK
    agree, differ = judged.agreeing
    if judged.jump:
        advice = "correct this machine's clock (NTP); if it is right, run: emix clock confirm"
        text = f"{judged.doubt}; nothing is deleted meanwhile"
        return Finding("clock", "problem", text, advice)
    if differ:
        text = f"the clocks of {differ} connected facilities differ by more than 10 minutes"
        level = "problem" if differ > agree else "warning"
        return Finding(
            "clock", level, text, "correct this clock (NTP), or have them correct theirs"
        )
    if agree:
        return Finding("clock", "ok", f"agrees with {agree} other facilities'")
    return Finding("clock", "ok", "consistent with the last recorded time")


def _outdated(subject: str, identity: Identity) -> Finding:
    """Say why no certificate of a peer is valid now: too early is another matter than too late."""
    now = clock.now()
    why = {why_not_valid(der, now) for der in identity.certificates} - {"has expired", ""}
    if why:
        advice = "check the clocks of this node and of the peer"
        return Finding(subject, "warning", f"its certificate {min(why)}", advice)
    advice = "this node gets the new one when it next reaches the peer's node"
    return Finding(subject, "warning", "its certificate has expired", advice)
