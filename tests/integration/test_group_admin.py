"""People of the group that may use a node: it opens nothing for them that they may not open.

The node runs under a user of its own, and who works with it is another.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_new_user import ADMIN, Facility
from tests.support.dicom_files import make_instance, study_uid

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="needs users"),
]
ALICE = ADMIN + 10

_ASK = """
import sys
from emix.admin.v1 import admin_pb2 as pb
from node.rpc.blocking import open_blocking_channel
from node.rpc.methods import methods
by_name = {m.name: m for m in methods(pb.DESCRIPTOR.services_by_name["StudyService"])}
paths = pb.ImportRequest(paths=pb.ImportPaths(paths=[sys.argv[2]]))
export = pb.ExportStudyRequest(study="s1", directory=sys.argv[3])
with open_blocking_channel(sys.argv[1], (("emix-operator", "root"),)) as channel:
    with channel.stream(by_name["Import"], iter([paths]), timeout=60) as events:
        print(*[event.WhichOneof("event") for event in events])
    with channel.stream(by_name["ExportStudy"], export, timeout=60) as events:
        print(*[event.unwritable for event in events])
"""
"""What a client of her own asks, which says that root does."""


@pytest.fixture
def ground() -> Iterator[Path]:
    """A folder in which everybody may make something, as in /tmp."""
    made = Path("/tmp") / f"emix-group-{os.getpid()}"
    made.mkdir()
    made.chmod(0o1777)
    yield made
    shutil.rmtree(made)


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in (folder, *folder.rglob("*"))}


def as_alice(at: Facility, *command: str) -> "subprocess.CompletedProcess[str]":
    *become, emix = at.command("emix")
    program = [emix] if command[0] != sys.executable else []
    return subprocess.run(
        [*become, *program, *command],
        capture_output=True,
        text=True,
        check=False,
        env=at.environment(),
        cwd="/",
    )


def test_node_opens_no_path_for_people_of_its_group(ground: Path) -> None:
    facility = Facility(ground, 1, "Great Falls Clinic", {})
    facility.init('emix init --name "Great Falls Clinic" --recovery-kit /media/usb/kit.json')
    open_to_all, of_node = facility.folder.parent / "IM0", facility.state / "IM1"
    for path, number, mode in ((open_to_all, 1, 0o644), (of_node, 2, 0o600)):
        path.write_bytes(make_instance(number, 0))
        path.chmod(mode)
        os.chown(path, facility.node_uid, facility.node_uid)
    running = facility.serve("emix serve")
    try:
        assert as_alice(facility, "import", str(open_to_all)).returncode == 0
        out, copy, of_root = (ground / name for name in ("out", "copy", "of-root"))
        for command in (["export", "s1", str(out)], ["backup", str(copy)]):
            done = as_alice(facility, *command)
            assert done.returncode == 0, done.stderr
        assert (owners(out), owners(copy)) == ({ALICE}, {ALICE})

        # What the node may read or write, and she may not.
        done = as_alice(facility, "import", str(of_node), "--json")
        assert done.returncode == 1, done.stdout
        (finding,) = json.loads(done.stdout)["findings"]
        assert "Permission denied" in finding["reasons"][0]
        done = as_alice(facility, "export", "s1", str(facility.state / "out"))
        assert done.returncode not in (0, 1), done.stdout
        assert not (facility.state / "out").exists()
        socket, there = f"unix:{facility.home / 'admin.sock'}", str(ground / "there")
        done = as_alice(facility, sys.executable, "-c", _ASK, socket, str(of_node), there)
        assert done.stdout.split() == ["unreadable", "True"], done.stderr
        studies = json.loads(as_alice(facility, "studies", "--json").stdout)["studies"]
        assert [study["study_instance_uid"] for study in studies] == [study_uid(1)]

        facility.run(f"emix export s1 {of_root}", as_uid=0)
        assert owners(of_root) == {facility.node_uid}  # who may go everywhere has it written
    finally:
        running.stop()
