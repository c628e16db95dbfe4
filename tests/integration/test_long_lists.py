"""A store whose lists are longer than a message: the command and stock tools show all of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.app.home import Home, unlock
from node.documents.delivery import open_delivery
from node.documents.manifest import open_manifest
from node.domain.ids import PackageId, TransferId
from node.domain.index import SERIES_KEYWORDS, STUDY_KEYWORDS, PackageIndex
from node.domain.manifest import StudyInstanceUID
from node.domain.packages import PackageState
from node.domain.transfers import Direction, State
from node.sql.database import Db
from node.store import audit_rows, package_rows, transfer_rows
from node.store.context import open_store
from tests.support.dicom_files import study_uid
from tests.support.hostile import HostilePeer, forge
from tests.support.nodes import Node

pytestmark = [pytest.mark.integration, pytest.mark.slow]
TRANSFERS, STUDIES, PACKAGES, ENTRIES = 20_000, 8_000, 3_000, 20_000
NOTE = "of some length " * 10


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with long lists, which were put into its store while it was stopped."""
    folder = tmp_path_factory.mktemp("long")
    node = Node(folder, "node", "Great Falls Clinic")
    node.make()
    node.start()
    peer = HostilePeer(folder)
    identity = peer.pair_with(node)
    made = forge(peer, identity, 1)
    assert node.stop() == 0
    unlocked = unlock(Home(node.home), None)
    context = open_store(
        node.home, unlocked.root_key, unlocked.secrets, unlocked.signer, reserve_bytes=0
    )
    manifest = open_manifest(made.manifest)
    delivery = replace(open_delivery(made.delivery), note=NOTE)

    def fill(db: Db) -> None:
        for n in range(TRANSFERS):
            named = replace(delivery, transfer_id=TransferId(n.to_bytes(16, "big")))
            transfer_rows.add_transfer(
                db,
                Direction.RECEIVE,
                named,
                made.delivery,
                made.sealed_key,
                State.DELIVERED,
                study_uid=study_uid(n % 7),
            )
        for n in range(STUDIES + PACKAGES):
            uid = StudyInstanceUID(study_uid(1000 + min(n, STUDIES)))
            package = package_rows.add_package(
                db,
                package_id=PackageId(n.to_bytes(32, "big")),
                origin=identity.facility_id,
                study_uid=uid,
                state=PackageState.CLOSED,
                epoch=0,
                wrapped_key=b"",
            )
            package_rows.add_chunks(db, package, 0, manifest.chunks, present=False)
            package_rows.add_instances(db, package, 0, manifest.instances)
            words = dict.fromkeys(
                (*STUDY_KEYWORDS, *SERIES_KEYWORDS, "SeriesInstanceUID"), "w" * 60
            )
            index = PackageIndex.of([words])
            package_rows.merge_index(db, package, index, index.forms())
        for n in range(ENTRIES):
            audit_rows.append(db, "test.entry", {"number": n, "text": "x" * 200})

    context.database.write_sync(fill)
    context.close()
    node.start()
    yield node
    assert node.stop() == 0


def test_command_lists_all_transfers(node: Node) -> None:
    found = json.loads(node.run("transfers", "--json"))["transfers"]
    assert len({t["transfer_id"] for t in found}) == len(found) == TRANSFERS
    numbers = [int(t["number"]) for t in found]
    assert numbers == sorted(numbers, reverse=True)
    assert len(json.loads(node.run("transfers", "--json", "--limit", "777"))["transfers"]) == 777


def test_command_lists_all_studies_and_all_packages_of_one(node: Node) -> None:
    found = json.loads(node.run("studies", "--json"))["studies"]
    assert len({s["study_instance_uid"] for s in found}) == len(found) == STUDIES + 1
    [source] = json.loads(node.run("study", study_uid(1000 + STUDIES), "--json"))["sources"]
    assert len({p["package_id"] for p in source["packages"]}) == PACKAGES


def test_command_lists_the_whole_audit_log(node: Node) -> None:
    found = json.loads(node.run("audit", "--json", "--limit", "0"))["entries"]
    assert [int(e["sequence"]) for e in found] == list(range(1, len(found) + 1))
    assert sum(e["kind"] == "test.entry" for e in found) == ENTRIES


@pytest.mark.parametrize(
    ("rpc", "field", "count"),
    [
        ("TransferService/ListTransfers", "transfers", TRANSFERS),
        ("StudyService/ListStudies", "studies", STUDIES),
        ("AuditService/ListAudit", "entries", ENTRIES),
    ],
)
def test_stock_grpcurl_lists_all(node: Node, rpc: str, field: str, count: int) -> None:
    pages = list(_documents(_grpcurl(node, rpc)))
    assert len(pages) > 1
    assert sum(len(page.get(field, [])) for page in pages) >= count


def _grpcurl(node: Node, rpc: str) -> str:
    program = shutil.which("grpcurl", path=Path(sys.executable).parent) or "grpcurl"
    socket = str(node.home / "admin.sock")
    done = subprocess.run(
        [program, "-plaintext", "-unix", socket, f"emix.admin.v1.{rpc}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _documents(text: str) -> Iterator[Any]:
    """Yield the JSON values of a text, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        yield value
        at += len(text[at:]) - len(text[at:].lstrip())
