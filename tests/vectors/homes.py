"""A home as a vector: keys, settings, database, chunks and envelopes, in a tar, with its kit."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from node.app.config import load_config
from node.app.home import Home, NewNode, make_home, unlock
from node.app.opening import open_home_store
from node.crypto.argon2 import Cost
from node.crypto.digests import digest
from node.crypto.keyring import RecoveryKit
from node.crypto.signing import facility_id
from node.dicom.examine import examine_bytes
from node.domain.actors import NODE
from node.exchange.events import Events
from node.exchange.ingest.intake import Incoming, Intake
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.exporting import Exporter
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from tests.support.catalogue import listed
from tests.support.dicom_files import make_instance
from tests.support.examining import LocalExpander

_PASSPHRASE = b"a home that every later version opens"
_LEAST = Cost(3, 64 * 2**20)
_KIT = "kit.json"


@contextmanager
def _opened(folder: Path) -> Iterator[StoreContext]:
    home = Home(folder / "home")
    config = replace(load_config(home.config), reserve_mib=0, ballast_mib=0)
    unlocked = unlock(home, _PASSPHRASE)
    context = open_home_store(home, config, unlocked, expander=LocalExpander())
    try:
        yield context
    finally:
        context.close()


def make() -> bytes:
    """Return a home with two studies."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        new = NewNode(
            "Great Falls Clinic",
            folder / _KIT,
            _PASSPHRASE,
            "127.0.0.1:0",
            "127.0.0.1:0",
            cost=_LEAST,
        )
        make_home(Home(folder / "home"), new)
        with _opened(folder) as context:
            trio.run(_fill, context)
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() or path.is_dir():
                    archive.add(path, path.relative_to(folder), recursive=False, filter=_nobodys)
        return written.getvalue()


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    return member.replace(uid=0, gid=0, uname="", gname="", mtime=0)


async def _fill(context: StoreContext) -> None:
    intake = Intake(ImportStore(context), Events().publish, NODE)
    images = [make_instance(1, n) for n in range(1, 4)] + [make_instance(2, 1, size=256)]
    files = [Incoming(str(n), examine_bytes(i), digest(i), i) for n, i in enumerate(images)]
    async with intake.opened():
        await intake.take(files)
        await intake.close()


def open_(data: bytes) -> Any:
    """Return what a home has: its studies, digests of what is exported, its log, its kit's ID."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")
        kit = RecoveryKit.decode((folder / _KIT).read_bytes())
        with _opened(folder) as context:
            return {
                "facility of the kit": str(facility_id(kit.facility_key.public)),
                "facility": str(context.facility),
                **trio.run(_read, context),
            }


async def _read(context: StoreContext) -> dict[str, Any]:
    studies = StudyStore(context)
    exporter = Exporter(context, studies)
    found = {}
    for source in await studies.sources(await listed(context)):
        plan = await exporter.plan(source.study_uid, "", all_versions=True, include_held=True)
        files = {file: bytearray(size) for file, size in plan.files}

        def sink(
            name: str, at: int, piece: bytes | memoryview, files: dict[str, bytearray] = files
        ) -> None:
            files[name][at : at + len(piece)] = piece

        await exporter.export(
            plan, sink, actor=NODE, destination="", safe_preamble=False, report=lambda *_: None
        )
        found[source.study_uid] = {file: sha256(data).hexdigest() for file, data in files.items()}
    walk = await AuditStore(context).verify()
    return {"studies": found, "audit": {"entries": walk.entries, "problem": str(walk.problem)}}
