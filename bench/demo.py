"""`make demo`: studies go from one facility to another, and every byte is compared.

A network's directory and two nodes of two facilities start in a temporary folder. The nodes
enroll, find each other, pair, and exchange real studies: pydicom's own test files, or those in
the folder that DICOM names. What comes out at the receiver is compared with a scan of the input
that knows nothing of emix. ROUTE=dial-back and ROUTE=relay have the receiver, or both, announce
an address where nobody answers. CHUNKS=s3 has both keep their chunks in a bucket. TAMPER=export,
chunk or receipt alters one byte there; then the demo must fail and say where.
"""

import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from rich.console import Console
from rich.table import Table

from tests.support.nodes import CommandFailed, Directory, Node, wait_until
from tests.support.seaweed import BUCKET, Seaweed, seaweed

_TAMPERINGS = ("", "export", "chunk", "receipt")
_ROUTES = ("direct", "dial-back", "relay")
_KEPT_BACK = ("hold", "refuse", "not-dicom")
_CHUNKS = ("files", "s3")
_NOBODY = '["127.0.0.1:1"]'
_MEDIA_DIRECTORY = b"1.2.840.10008.1.3.10\0"


@dataclass
class Outcome:
    """What the demo found, for its table."""

    summary: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    meeting_seconds: float = 0.0
    relayed_bytes: int = 0


def main() -> None:
    """Run the demo; exit status 1 if anything differs."""
    tamper = os.environ.get("TAMPER", "")
    if tamper not in _TAMPERINGS:
        sys.exit("TAMPER must be export, chunk or receipt")
    route = os.environ.get("ROUTE", "direct")
    if route not in _ROUTES:
        sys.exit("ROUTE must be direct, dial-back or relay")
    chunks = os.environ.get("CHUNKS", "files")
    if chunks not in _CHUNKS:
        sys.exit("CHUNKS must be files or s3")
    given = os.environ.get("DICOM")
    source = Path(given) if given else Path(pydicom.__file__).parent / "data" / "test_files"
    if not source.exists():
        sys.exit(f"DICOM={source}: there is no such folder")
    folder = Path(tempfile.mkdtemp(prefix="emix-demo-"))
    outcome = Outcome()
    try:
        with ExitStack() as stack:
            (folder / "bucket").mkdir()
            bucket = stack.enter_context(seaweed(folder / "bucket")) if chunks == "s3" else None
            a, b = stack.enter_context(running_network(folder, route, outcome, bucket))
            _exchange(folder, a, b, source, tamper, outcome, bucket)
    except CommandFailed as exc:
        outcome.problems.append(str(exc))
    finally:
        shutil.rmtree(folder)
    routes = {t["route"] for t in outcome.transfers if t["route"]}
    if not outcome.problems and routes != {route}:
        outcome.problems.append(f"went {', '.join(routes) or 'nowhere'}, not {route}")
    _show(source, outcome)
    if outcome.problems:
        sys.exit(1)


@contextmanager
def running_network(
    folder: Path, route: str, outcome: Outcome, bucket: Seaweed | None = None
) -> Iterator[tuple[Node, Node]]:
    """Run a directory and two nodes that have found each other, for the time of the block."""
    directory = Directory(folder)
    a = Node(folder, "great-falls", "Great Falls Clinic")
    b = Node(folder, "billings", "Billings Hospital")
    try:
        directory.make()
        directory.start()
        for node in (a, b):
            node.make(options=bucket.options(node.home.name) if bucket else ())
        b.set(city='"Billings"', departments='["Radiology"]')
        if route != "direct":
            b.set(announce=_NOBODY)
        if route == "relay":
            a.set(announce=_NOBODY)
        for node in (a, b):
            node.start()
        started = time.perf_counter()
        directory.enroll(a, b)
        [found] = a.json("find", "bilings", "radiology")["facilities"]  # a typing error
        a.run("peers", "pair", found["facility_id"])
        b.run("peers", "pair", a.json("id")["facility_id"])
        wait_until(lambda: _route(a) == route, f"no way of the kind {route} was found", 60)
        outcome.meeting_seconds = time.perf_counter() - started
        yield a, b
        outcome.relayed_bytes = int(directory.json("relay", "status")["bytes"])
    finally:
        for server in (a, b, directory):
            server.stop()


def _route(node: Node) -> str:
    [peer] = node.json("peers")["peers"]
    return str(peer["route"]) if peer["state"] == "connected" else ""


def _exchange(
    folder: Path,
    a: Node,
    b: Node,
    source: Path,
    tamper: str,
    outcome: Outcome,
    bucket: Seaweed | None,
) -> None:
    imported = _timed(outcome, "import", lambda: a.json("import", str(source), statuses=(0, 1)))
    outcome.summary, outcome.findings = imported["summary"], imported["findings"]
    studies = a.json("studies")["studies"]
    if tamper == "chunk":
        chunk = _flip_chunk(a, bucket)
        print(f"TAMPER: flipped one bit of chunk {chunk} in the sender's store")
    _timed(outcome, "send", lambda: _send_all(a, b, studies, outcome))
    out = folder / "export"
    _timed(outcome, "export", lambda: _export_all(b, out))
    if tamper == "export":
        file = _flip_byte(max(out.rglob("*"), key=lambda p: p.stat().st_size * p.is_file()))
        print(f"TAMPER: flipped one bit of the exported file {file.relative_to(folder)}")
    _compare(source, out, outcome)
    _verify_receipts(folder, a, tamper, outcome)
    for node in (a, b):
        node.run("audit", "verify")
        node.run("store", "check", "--read-data", statuses=(0, 1) if tamper else (0,))


def _flip_chunk(node: Node, bucket: Seaweed | None) -> str:
    """Flip a bit of a node's largest chunk; return its id."""
    if bucket is None:
        chunks = (node.home / "chunks").rglob("*/*")
        return _flip_byte(max(chunks, key=lambda p: p.stat().st_size)).name
    client, where = bucket.client, {"Bucket": BUCKET}
    listed = client.call("list_objects_v2", Prefix=f"{node.home.name}/", **where)["Contents"]
    key = max(listed, key=lambda one: int(one["Size"]))["Key"]
    content = bytearray(client.call("get_object", Key=key, **where)["Body"].read())
    content[len(content) // 2] ^= 1
    client.call("put_object", Key=key, Body=bytes(content), **where)
    return str(key).rpartition("/")[2]


def _timed(outcome: Outcome, name: str, work: Any) -> Any:
    started = time.perf_counter()
    result = work()
    outcome.seconds[name] = time.perf_counter() - started
    return result


def _send_all(a: Node, b: Node, studies: list[dict[str, Any]], outcome: Outcome) -> None:
    for study in studies:
        sent = a.json(
            "send", study["study_instance_uid"], b.display_name, "--wait", statuses=(0, 1)
        )
        outcome.transfers += sent["transfers"]
    outcome.problems += [
        f"transfer {t['transfer_id'][:8]} is {t['state']}: {t['reason']}"
        for t in outcome.transfers
        if t["state"] != "delivered"
    ]


def _export_all(b: Node, out: Path) -> None:
    out.mkdir()  # an export makes the last folder of its path only
    for n, study in enumerate(b.json("studies")["studies"]):
        uid = study["study_instance_uid"]
        b.run("export", uid, str(out / f"{n:04d}"), "--all-versions")


def _compare(source: Path, out: Path, outcome: Outcome) -> None:
    """Hold every byte that came out against a scan of the input of our own."""
    expected = _scan(source)
    kept_back = {f["label"] for f in outcome.findings if f["verdict"] in _KEPT_BACK}
    wanted = {
        digest: label
        for label, (digest, is_medium) in expected.items()
        if label not in kept_back and not is_medium
    }
    found = {_digest(path.read_bytes()): path for path in out.rglob("*") if path.is_file()}
    for digest, label in wanted.items():
        if digest not in found:
            outcome.problems.append(f"not byte-identical at the receiver: {label}")
    known = {digest for digest, _ in expected.values()}
    for digest, path in found.items():
        if digest not in known:
            outcome.problems.append(f"exported, but never put in: {path.relative_to(out)}")


def _scan(source: Path) -> dict[str, tuple[str, bool]]:
    """Return by label each file's digest, and whether it is a DICOMDIR; ZIPs are looked into."""
    files: dict[str, tuple[str, bool]] = {}
    paths = [source] if source.is_file() else sorted(source.rglob("*"))
    for path in paths:
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        member = archive.read(entry)
                        files[f"{path}!{entry.filename}"] = _described(member)
        else:
            is_packed = data[:2] == b"\x1f\x8b"
            files[str(path)] = _described(gzip.decompress(data) if is_packed else data)
    return files


def _described(data: bytes) -> tuple[str, bool]:
    is_medium = data[128:132] == b"DICM" and _MEDIA_DIRECTORY in data[132:600]
    return _digest(data), is_medium or _MEDIA_DIRECTORY[:-1] in data[132:400]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _flip_byte(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    return path


def _verify_receipts(folder: Path, a: Node, tamper: str, outcome: Outcome) -> None:
    """Verify every receipt offline: with a home in which no node runs."""
    offline = Node(folder, "nobody", "")
    for n, transfer in enumerate(outcome.transfers):
        if transfer["state"] != "delivered":
            continue
        file = folder / f"receipt-{transfer['transfer_id']}"
        a.run("receipts", "export", transfer["transfer_id"], str(file))
        if tamper == "receipt" and n == 0:
            _flip_in_receipt(file)
            print(f"TAMPER: changed one byte of {file.name}")
        try:
            offline.run("receipts", "verify", str(file))
        except CommandFailed as exc:
            outcome.problems.append(f"{file.name} does not verify: {exc}")


def _flip_in_receipt(file: Path) -> None:
    """Change one byte of the signed receipt inside an exported proof."""
    text = file.read_text()
    place = text.index('"receipt": "') + 40
    other = "A" if text[place] != "A" else "B"
    file.write_text(text[:place] + other + text[place + 1 :])


def _show(source: Path, outcome: Outcome) -> None:
    console = Console(highlight=False)
    summary = outcome.summary
    kept_back = [f for f in outcome.findings if f["verdict"] in ("hold", "refuse")]
    if kept_back:
        listed = Table("FILE", "VERDICT", "WHY", title="Not carried", title_justify="left")
        for finding in kept_back:
            label = finding["label"].removeprefix(f"{source}/")
            listed.add_row(label, finding["verdict"], "; ".join(finding["reasons"]))
        console.print(listed)
    size = int(summary.get("plaintext_bytes", 0))
    sealed = int(summary.get("sealed_bytes", 0))
    delivered = sum(t["state"] == "delivered" for t in outcome.transfers)
    table = Table("", "", title="Great Falls Clinic to Billings Hospital", title_justify="left")
    table.add_row("studies", str(len(summary.get("study_instance_uids", ()))))
    table.add_row("instances", f"{summary.get('carried', 0)} ({summary.get('flagged', 0)} flagged)")
    table.add_row("held", str(summary.get("held", 0)))
    table.add_row("refused", str(summary.get("refused", 0)))
    table.add_row("transfers delivered", f"{delivered} of {len(outcome.transfers)}")
    table.add_row("bytes", f"{size:,}")
    table.add_row("sealed bytes", f"{sealed:,} ({100 * sealed / (size or 1):.0f} %)")
    for name, seconds in outcome.seconds.items():
        rate = size / 1e6 / seconds if seconds else 0
        table.add_row(f"{name} time", f"{seconds:.2f} s ({rate:.1f} MB/s)")
    table.add_row("enroll, find, pair, connect", f"{outcome.meeting_seconds:.2f} s")
    routes = {t["route"] for t in outcome.transfers if t["route"]}
    table.add_row("relayed bytes", f"{outcome.relayed_bytes:,}")
    table.add_row("route", ", ".join(sorted(routes)))
    result = "FAILED" if outcome.problems else "every byte and every receipt is right"
    table.add_row("result", result)
    console.print(table)
    for problem in outcome.problems[:20]:
        console.print(f"FAILED: {problem}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
