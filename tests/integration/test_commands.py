"""The commands as a person uses them, against running nodes."""

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pydicom.fileset import FileSet
from pydicom.uid import BasicTextSRStorage

from tests.support.dicom_files import encode, make_dataset, make_instance, study_uid, write_study
from tests.support.nodes import CommandFailed, Node, wait_until
from tests.support.processes import interruptible

pytestmark = pytest.mark.integration


def imported(node: Node, path: Path, *options: str) -> dict[str, int]:
    answer = node.json("import", str(path), *options, statuses=(0, 1))
    return {k: int(v) for k, v in answer["summary"].items() if isinstance(v, int | str)}


def test_importing_again_changes_nothing(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    folder = write_study(tmp_path / "s", 1, 5)
    assert imported(a, folder)["carried"] == 5
    again = imported(a, folder)
    assert (again["carried"], again["known"]) == (0, 5)
    for n in range(6, 9):
        (folder / f"{n}.dcm").write_bytes(make_instance(1, n))
    more = imported(a, folder)
    assert (more["carried"], more["known"]) == (3, 5)
    packages = a.json("study", study_uid(1))["sources"][0]["packages"]
    assert [p["instances"] for p in packages] == [5, 3]


def test_two_imports_of_one_study_at_once_each_keep_what_they_carried(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    whole = write_study(tmp_path / "s", 16, 120, size=256)
    for half in ("x", "y"):
        (tmp_path / half).mkdir()
    for n, path in enumerate(sorted(whole.iterdir())):
        path.rename(tmp_path / ("x" if n % 2 else "y") / path.name)
    commands = [a.command("import", str(tmp_path / half)) for half in ("x", "y")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
    a.run("send", study_uid(16), b.display_name, "--wait")
    assert b.json("study", study_uid(16))["sources"][0]["instances"] == 120


def test_streamed_import_gives_the_same(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    folder = write_study(tmp_path / "s", 2, 3)
    (folder / "large.dcm").write_bytes(make_instance(2, 99, size=2048))
    summary = imported(a, folder, "--stream")
    assert summary["carried"] == 4
    a.run("export", study_uid(2), str(tmp_path / "out"))
    out = {p.read_bytes() for p in (tmp_path / "out").rglob("IM*")}
    assert out == {p.read_bytes() for p in folder.iterdir()}


def test_what_the_node_may_not_read_or_write_is_streamed_without_asking(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv (Debian package util-linux)")
    node = Node(tmp_path, "node", "Other User Clinic")
    node.make()
    plain = node.command
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    node.command = lambda *a: [*drop, *plain(*a)] if a == ("serve",) else plain(*a)  # type: ignore[method-assign]
    node.start()
    try:
        folder = write_study(tmp_path / "s", 20, 3)
        files = {p.read_bytes() for p in folder.iterdir()}
        folder.chmod(0)  # for the node too: it is root without root's rights over files
        assert imported(node, folder)["carried"] == 3
        inside = write_study(tmp_path / "private" / "s", 22, 2)
        inside.parent.chmod(0)  # now the folder may not even be looked at
        assert imported(node, inside)["carried"] == 2
        closed = tmp_path / "closed"
        closed.mkdir()
        closed.chmod(0o500)
        node.run("export", study_uid(20), str(closed / "out"), "--dicomdir")
        assert (closed / "out" / "DICOMDIR").exists()
        assert {p.read_bytes() for p in (closed / "out").rglob("*0*") if p.is_file()} == files
        imported(node, write_study(tmp_path / "t", 30, 400, size=512))
        _interrupt_export(node, study_uid(30), closed / "interrupted")
        assert [p.name for p in closed.iterdir()] == ["out"]
        odd = tmp_path / "odd"
        odd.mkdir()
        (odd / "1.dcm").write_bytes(_unlistable_instance(21, 1))
        imported(node, odd)
        node.run("export", study_uid(21), str(closed / "odd"), "--dicomdir", statuses=(1,))
        assert (closed / "odd" / "SE000001" / "IM000001").exists()
        node.run("studies")
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("study", "options"), [(81, ()), (82, ("--stream",))], ids=["named", "streamed"]
)
def test_interrupted_import_leaves_nothing(
    nodes: tuple[Node, Node], tmp_path: Path, study: int, options: tuple[str, ...]
) -> None:
    a, _ = nodes
    chunks = _chunks(a)
    folder = write_study(tmp_path / "s", study, 300, size=512)
    process = interruptible(a.command("import", str(folder), *options))
    wait_until(lambda: _chunks(a) > chunks, "nothing is imported")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "nothing of it was stored" in said) == (130, True), said
    assert _chunks(a) == chunks
    assert imported(a, folder)["known"] == 0


@pytest.mark.parametrize("options", [(), ("--stream",)], ids=["read by the node", "streamed"])
def test_zip_is_looked_into_and_bad_members_are_listed(
    nodes: tuple[Node, Node], tmp_path: Path, options: tuple[str, ...]
) -> None:
    a, _ = nodes
    a.run("delete", study_uid(3), "--yes", statuses=(0, 4))
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.dcm", make_instance(3, 1))
        big = make_dataset(3, 2, size=2048)
        big.PixelData = random.Random(3).randbytes(2048 * 2048 * 2)
        archive.writestr("big.dcm", encode(big))
        archive.writestr("notes.txt", "hello")
        archive.writestr("bomb.bin", bytes(50_000_000))
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        lost = make_dataset(3, 3, size=1600)
        lost.PixelData = random.Random(4).randbytes(1600 * 1600 * 2)
        archive.writestr("broken.dcm", encode(lost))
        broken = archive.infolist()[-1].header_offset
    with path.open("r+b") as handle:
        handle.seek(broken + 3_000_000)
        handle.write(bytes(1000))
    answer = a.json("import", str(path), *options, statuses=(1,))
    counts = [answer["summary"][name] for name in ("carried", "refused", "not_dicom")]
    assert counts == [2, 3, 1]
    reasons = {f["label"].rpartition("!")[2]: f["reasons"][0] for f in answer["findings"]}
    assert set(reasons) == {"notes.txt", "bomb.bin", "link.dcm", "broken.dcm"}
    assert reasons["broken.dcm"] == "damaged inside its archive"
    assert reasons["bomb.bin"] == "it begins with zeros, probably because a copy failed"
    assert reasons["link.dcm"] == "a link inside a ZIP"


def test_dicomdir_lists_the_files_and_leaves_them_as_they_are(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = write_study(tmp_path / "s", 15, 3)
    imported(a, folder)
    out = tmp_path / "out"
    a.run("export", study_uid(15), str(out), "--dicomdir")
    file_set = FileSet(out / "DICOMDIR")
    listed = [Path(str(i.path)) for i in file_set]
    file_set._stage["t"].cleanup()  # pydicom leaves it to the garbage collector
    wanted = {p.read_bytes() for p in folder.iterdir()}
    assert {p.read_bytes() for p in listed} == wanted
    assert {p.name for p in out.iterdir()} == {"DICOMDIR", "SE000001"}
    again = imported(a, out / "DICOMDIR")
    assert (again["known"], again["directories"]) == (3, 1)


def test_file_that_no_dicomdir_can_list_is_exported_all_the_same(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "odd.dcm").write_bytes(_unlistable_instance(171, 1))
    assert imported(a, folder)["carried"] == 1
    files = {p.read_bytes() for p in folder.iterdir()}
    answer = a.json("export", study_uid(171), str(tmp_path / "alone"), "--dicomdir", statuses=(1,))
    assert (answer["has_dicomdir"], answer["instances"]) == (False, 1)
    (unlisted,) = answer["unlisted"]
    assert unlisted["name"] == "SE000001/IM000001"
    assert unlisted["reason"].startswith("it has no ConceptNameCodeSequence")
    said = a.run("export", study_uid(171), str(tmp_path / "told"), "--dicomdir", statuses=(1,))
    assert "1 files are exported, and no DICOMDIR can list them:" in said
    assert "SE000001/IM000001: it has no ConceptNameCodeSequence, which its" in said
    assert {p.read_bytes() for p in (tmp_path / "alone").rglob("*") if p.is_file()} == files
    (folder / "good.dcm").write_bytes(make_instance(171, 2))
    imported(a, folder)
    out = tmp_path / "beside"
    said = a.run("export", study_uid(171), str(out), "--dicomdir", statuses=(1,))
    assert "1 files are exported, and the DICOMDIR does not list them" in said
    assert "SE000001/IM000001: it has no ConceptNameCodeSequence, which its" in said
    assert (out / "DICOMDIR").exists()
    assert (out / "SE000001" / "IM000001").read_bytes() == _unlistable_instance(171, 1)


def _unlistable_instance(study: int, instance: int) -> bytes:
    """Return a report without a title."""
    ds = make_dataset(study, instance)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    return encode(ds)


def test_large_file_whose_study_is_named_late_is_carried(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = tmp_path / "late"
    folder.mkdir()
    ds = make_dataset(23, 1, size=1600)
    block = ds.private_block(0x0009, "A TEST", create=True)
    block.add_new(0x01, "OB", random.Random(23).randbytes(9_000_000))
    ds.save_as(folder / "late.dcm", enforce_file_format=True)
    for options in ((), ("--stream",)):
        assert imported(a, folder, *options)["refused"] == 0
    a.run("export", study_uid(23), str(tmp_path / "out"))
    (out,) = (tmp_path / "out").rglob("IM*")
    assert out.read_bytes() == (folder / "late.dcm").read_bytes()


def test_large_file_that_names_no_study_in_time_says_so(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    ds = make_dataset(31, 1)
    ds.private_block(0x0009, "A TEST", create=True).add_new(0x01, "OB", bytes(80_000_000))
    ds.save_as(tmp_path / "late.dcm", enforce_file_format=True)
    answer = a.json("import", str(tmp_path / "late.dcm"), statuses=(1,))
    assert answer["findings"][0]["reasons"] == ["no Study Instance UID in its first 64 MiB"]


def test_streaming_nothing_imports_nothing(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    (tmp_path / "empty").mkdir()
    assert imported(a, tmp_path / "empty", "--stream")["carried"] == 0
    (tmp_path / "empty" / "link.dcm").symlink_to("/etc/passwd")
    answer = a.json("import", str(tmp_path / "empty"), "--stream", statuses=(1,))
    assert answer["findings"][0]["reasons"] == ["a symbolic link; import its target"]
    assert answer["summary"]["refused"] == 1


def test_export_onto_a_full_disk_is_an_error(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    a, _ = nodes
    noise = make_dataset(24, 1, size=1000)
    noise.PixelData = random.Random(24).randbytes(2_000_000)
    (tmp_path / "s").mkdir()
    noise.save_as(tmp_path / "s" / "x.dcm", enforce_file_format=True)
    imported(a, tmp_path / "s")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        said = _error(a, "export", study_uid(24), str(small / "out"))
        assert "has room for" in said
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_export_that_the_command_writes_holds_room_on_its_own_disk(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv (Debian package util-linux)")
    node = Node(tmp_path, "node", "Other User Clinic")
    node.make()
    plain = node.command
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    node.command = lambda *a: [*drop, *plain(*a)] if a == ("serve",) else plain(*a)  # type: ignore[method-assign]
    node.start()
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(small)], check=True)
    try:
        imported(node, write_study(tmp_path / "s", 31, 40, size=512))  # 21 MB, and 16 MB are free
        small.chmod(0o500)
        said = _error(node, "export", study_uid(31), str(small / "out"))
        assert "has room for" in said
        assert not list(small.iterdir())
        imported(node, write_study(tmp_path / "t", 32, 2, size=512))
        node.run("export", study_uid(32), str(small / "out"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
        node.stop()


def test_interrupted_export_leaves_nothing(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    imported(a, write_study(tmp_path / "s", 25, 400, size=512))
    _interrupt_export(a, study_uid(25), tmp_path / "out")
    wait_until(lambda: not (tmp_path / "out").exists(), "half an export is left")
    a.run("export", study_uid(25), str(tmp_path / "out"))
    assert len(list((tmp_path / "out").rglob("IM*"))) == 400


def _interrupt_export(node: Node, uid: str, out: Path) -> None:
    """Press Ctrl-C while the first files are being written; nothing has its name by then."""
    assert node.process is not None
    exporting = interruptible(node.command("export", uid, str(out)))
    while not any(out.glob(".emix-partial/SE*/IM*")):
        assert exporting.poll() is None, "it was over before it was seen"
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        assert [path.name for path in out.iterdir()] == [".emix-partial"]
        exporting.send_signal(signal.SIGINT)
        _, said = exporting.communicate(timeout=30)
    finally:
        os.kill(node.process.pid, signal.SIGCONT)
    assert exporting.returncode == 130
    assert "the partial export was removed" in said


def test_nothing_is_exported_into_a_home(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    imported(a, write_study(tmp_path / "s", 26, 1))
    said = _error(a, "export", study_uid(26), str(a.home / "chunks" / "out"))
    assert "choose another folder" in said
    assert not (a.home / "chunks" / "out").exists()


def test_study_is_exported_into_a_zip_byte_for_byte(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = write_study(tmp_path / "s", 33, 30, size=512)
    large = make_dataset(33, 31, size=2200)  # longer than a chunk
    large.PixelData = random.Random(1).randbytes(2200 * 2200 * 2)
    (folder / "large").write_bytes(encode(large))
    imported(a, folder)
    target = tmp_path / "study.zip"
    told = a.json("export", study_uid(33), str(target))
    assert (told["instances"], told["is_byte_exact"]) == (31, True)
    wanted = sorted(path.read_bytes() for path in folder.iterdir())
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.read(name) for name in archive.namelist()) == wanted
        assert all(re.fullmatch(r"SE000001/IM0000\d\d", name) for name in archive.namelist())
    assert imported(a, target)["known"] == 31
    assert "choose another name" in _error(a, "export", study_uid(33), str(target))
    zeroed = tmp_path / "zeroed.ZIP"
    a.run("export", study_uid(33), str(zeroed), "--safe-preamble")
    with zipfile.ZipFile(zeroed) as archive:
        found = sorted(archive.read(name) for name in archive.namelist())
    assert found == sorted(bytes(128) + data[128:] for data in wanted)
    medium = tmp_path / "medium.zip"
    a.run("export", study_uid(33), str(medium), "--dicomdir")
    with zipfile.ZipFile(medium) as archive:
        archive.extractall(tmp_path / "medium")
    listed = FileSet(tmp_path / "medium" / "DICOMDIR")
    assert sorted(Path(str(i.path)).read_bytes() for i in listed) == sorted(wanted)
    listed._stage["t"].cleanup()  # pydicom leaves it to the garbage collector
    inside = a.home / "chunks" / "out.zip"
    assert "choose another folder" in _error(a, "export", study_uid(33), str(inside))
    assert not inside.exists()
    assert {path.name for path in tmp_path.iterdir()} >= {"study.zip", "zeroed.ZIP"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_send_says_what_was_sent_before(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = nodes
    imported(a, write_study(tmp_path / "s", 27, 1))
    assert "sent there before" not in a.run("send", study_uid(27), b.display_name, "--wait")
    assert "nothing new is sent" in a.run("send", study_uid(27), b.display_name, "--wait")
    a.run("send", study_uid(27), b.display_name, "--again", "--note", "once more", "--wait")
    assert "once more" in b.run("inbox")


def test_special_files_are_refused_and_do_not_block(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "empty.dcm").touch()
    (folder / "link.dcm").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo.dcm")
    answer = a.json("import", str(folder), statuses=(1,))
    reasons = {Path(f["label"]).name: f["reasons"][0] for f in answer["findings"]}
    assert reasons["link.dcm"] == "a symbolic link; import its target"
    assert reasons["fifo.dcm"] == "not a regular file"
    assert reasons["empty.dcm"] == "an empty file"


def test_same_instance_with_other_bytes_is_kept_as_a_version(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = write_study(tmp_path / "s", 4, 1)
    imported(a, folder)
    ds = make_dataset(4, 1)
    ds.PatientComments = "corrected"
    (folder / "00001.dcm").write_bytes(encode(ds))
    answer = a.json("import", str(folder))
    assert "another version" in answer["findings"][0]["reasons"][0]
    a.run("export", study_uid(4), str(tmp_path / "latest"))
    latest = [p.read_bytes() for p in (tmp_path / "latest").rglob("IM*")]
    assert latest == [encode(ds)]
    a.run("export", study_uid(4), str(tmp_path / "all"), "--all-versions")
    assert len(list((tmp_path / "all").rglob("*/*"))) == 2
    assert [p.name for p in (tmp_path / "all").rglob("OV*")] == ["OV000001"]


def test_imported_instance_that_is_held_is_named_where_its_study_is_sent(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    folder = write_study(tmp_path / "s", 172, 1)
    (folder / "x.dcm").write_bytes(b"MZ" + make_instance(172, 2)[2:])
    imported(a, folder)
    said = a.run("send", study_uid(172), b.display_name, "--wait", statuses=(1,))
    assert f"{study_uid(172)}.1.2 is held here and was not sent" in said
    said = a.run("export", study_uid(172), str(tmp_path / "out"), statuses=(1,))
    assert f"{study_uid(172)}.1.2: its preamble begins like" in said
    a.run("held", "discard", a.json("held")["held"][0]["held_id"])
    a.run("send", study_uid(172), b.display_name, "--wait")


def test_two_patients_in_one_study_are_shown_and_asked_about_before_it_is_sent(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    for n, (name, number) in enumerate((("CARTER^CARL", "PC1"), ("DAVIS^DORA", "PD2")), 1):
        ds = make_dataset(173, n, series=n)
        ds.PatientName, ds.PatientID = name, number
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "IM").write_bytes(encode(ds))
        flagged = imported(a, tmp_path / str(n))["flagged"]
    assert flagged == 1
    for words in ("pc1", "davis"):
        (study,) = a.json("studies", words)["studies"]
        names = [patient["name"] for patient in study["patients"]]
        assert (names, study["patients_total"]) == (["CARTER^CARL", "DAVIS^DORA"], 2)
    assert "2 patients under one Study Instance UID" in a.run("study", study_uid(173))
    with pytest.raises(CommandFailed, match=r"DAVIS\^DORA  PD2[\s\S]*cannot ask here"):
        a.run("send", study_uid(173), b.display_name)
    assert not [t for t in a.json("transfers")["transfers"] if study_uid(173) in str(t)]
    a.run("send", study_uid(173), b.display_name, "--wait", "--yes")
    (arrived,) = [s for s in b.json("inbox")["studies"] if s["patients_total"] == 2]
    assert arrived["study_instance_uid"] == study_uid(173)


def test_words_with_a_study_are_kept_changed_and_shown_at_the_receiver(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    imported(a, write_study(tmp_path / "s", 174, 1))

    def arrived() -> tuple[str, str, str]:
        studies = b.json("inbox")["studies"]
        (study,) = [s for s in studies if s["study_instance_uid"] == study_uid(174)]
        (package,) = study["packages"]
        return package["recipient"], package["note"], package["priority"]

    words = ("--to", "Dr. Jones", "--note", "second opinion", "--priority", "stat")
    a.run("send", study_uid(174), b.display_name, *words, "--wait")
    assert arrived() == ("Dr. Jones", "second opinion", "stat")
    a.run("send", study_uid(174), b.display_name, "--again", "--wait")
    assert arrived() == ("Dr. Jones", "second opinion", "stat")
    sent = a.json("send", study_uid(174), b.display_name, "--note", "for the board", "--wait")
    assert (len(sent["transfers"]), sent["transfers"][0]["bytes_carried"]) == (1, 0)
    assert arrived() == ("Dr. Jones", "for the board", "stat")
    assert "for Dr. Jones; stat; for the board" in b.run("study", study_uid(174))


def test_sender_hears_that_a_study_was_deleted_and_sends_it_anew(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    imported(a, write_study(tmp_path / "s", 175, 1))
    a.run("send", study_uid(175), b.display_name, "--wait")
    known = a.run("send", study_uid(175), b.display_name)
    assert "may have been deleted there since" in known

    def deleted() -> bool:
        return bool(a.json("studies", study_uid(175))["studies"][0]["deleted_seconds"][0])

    assert not deleted()
    b.run("delete", study_uid(175), "--yes")
    b.stop()  # it has not told yet, or not for sure
    b.start()
    wait_until(deleted, "the sender never hears of it", 60)
    assert "deleted there on 20" in a.run("study", study_uid(175))
    assert "deleted there since, on 20" in a.run("transfers")
    assert "DELETED THERE" in a.run("receipts")
    assert any(e["kind"] == "transfer.deleted-there" for e in a.json("audit")["entries"])
    a.run("send", study_uid(175), b.display_name, "--wait")
    assert b.json("studies", study_uid(175))["studies"]
    assert not deleted()


def test_held_file_is_released_by_a_person_only(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = nodes
    folder = tmp_path / "held"
    folder.mkdir()
    data = b"MZ" + make_instance(5, 1)[2:]
    (folder / "x.dcm").write_bytes(data)
    answer = a.json("import", str(folder), statuses=(1,))
    assert answer["findings"][0]["verdict"] == "hold"
    assert not a.json("studies", study_uid(5))["studies"]
    number = a.json("held")["held"][0]["held_id"]
    a.run("held", "release", number)
    assert not a.json("held")["held"]
    a.run("send", study_uid(5), b.display_name, "--wait")
    # What a person here has decided is asked again there.
    b.run("export", study_uid(5), str(tmp_path / "out"), statuses=(5,))
    b.run("held", "release", b.json("held")["held"][0]["held_id"])
    b.run("export", study_uid(5), str(tmp_path / "out"))
    assert [p.read_bytes() for p in (tmp_path / "out").rglob("IM*")] == [data]
    b.run("export", study_uid(5), str(tmp_path / "safe"), "--safe-preamble")
    safe = next((tmp_path / "safe").rglob("IM*")).read_bytes()
    assert safe == bytes(128) + data[128:]


@pytest.mark.parametrize("size", [64, 1800], ids=["small", "large"])
def test_held_file_imported_again_is_held_still(
    nodes: tuple[Node, Node], tmp_path: Path, size: int
) -> None:
    a, _ = nodes
    (tmp_path / "x.dcm").write_bytes(b"MZ" + make_instance(29, size, size=size)[2:])
    for _ in range(2):
        answer = a.json("import", str(tmp_path / "x.dcm"), statuses=(1,))
        assert (answer["summary"]["held"], answer["summary"]["known"]) == (1, 0)
    assert "held already" in answer["findings"][0]["reasons"]
    assert len(a.json("held")["held"]) == 1
    a.run("held", "release", a.json("held")["held"][0]["held_id"])
    assert imported(a, tmp_path / "x.dcm")["known"] == 1


def test_release_is_one_fact_with_its_package(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    (tmp_path / "x.dcm").write_bytes(b"MZ" + make_instance(28, 1)[2:])
    a.run("import", str(tmp_path / "x.dcm"), statuses=(1,))
    number = a.json("held")["held"][-1]["held_id"]
    a.run("held", "release", number)
    last = a.json("audit", "--limit", "2")["entries"]
    assert [e["kind"] for e in last] == ["package.closed", "held.released"]
    assert json.loads(last[1]["body"])["held"] == int(number)


def test_study_from_two_facilities_stays_two_sources(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    folder = write_study(tmp_path / "s", 6, 2)
    imported(a, folder)
    imported(b, folder)
    a.run("send", study_uid(6), b.display_name, "--wait")
    sources = b.json("study", study_uid(6))["sources"]
    assert len({s["origin"] for s in sources}) == 2


def test_received_study_is_sent_on_with_its_manifest_unchanged(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    third = Node(tmp_path, "third", "Third Clinic")
    third.make()
    third.start()
    try:
        for node, other in ((b, third), (third, b)):
            file = tmp_path / f"{other.home.name}.emix"
            other.run("id", "--export", str(file), "--no-qr")
            node.run("peers", "pair", str(file))
        imported(a, write_study(tmp_path / "s", 7, 3))
        first = a.json("send", study_uid(7), b.display_name, "--wait")["transfers"][0]
        second = b.json("send", study_uid(7), "Third Clinic", "--wait")["transfers"][0]
        assert second["state"] == "delivered"
        for node, transfer, name in ((a, first, "one"), (b, second, "two")):
            node.run("receipts", "export", transfer["transfer_id"], str(tmp_path / name))
        one, two = (json.loads((tmp_path / name).read_text()) for name in ("one", "two"))
        assert one["manifest"] == two["manifest"]
        study = third.json("study", study_uid(7))["sources"][0]
        assert not study["origin_pinned"]
        shown = third.run("receipts", "verify", str(tmp_path / "two"))
        assert "NOT PINNED HERE" in shown
        assert "this facility: Third Clinic" in shown
    finally:
        third.stop()
        b.run("peers", "remove", "Third Clinic", "--yes")


def test_policy_ask_holds_an_offer_until_a_person_decides(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    config = b.home / "emix.toml"
    text = config.read_text()
    config.write_text(text.replace('# incoming = "accept"', 'incoming = "ask"'))
    b.stop()
    b.start()
    try:
        imported(a, write_study(tmp_path / "s", 8, 1))
        imported(a, write_study(tmp_path / "t", 9, 1))
        for study in (8, 9):
            a.run("send", study_uid(study), b.display_name, "--to", "Dr. Who")
        wait_until(lambda: len(_offers(b)) == 2, "the offers do not arrive")
        assert {o["recipient"] for o in _offers(b)} == {"Dr. Who"}
        ids = {t["study_instance_uid"]: t["transfer_id"] for t in a.json("transfers")["transfers"]}
        b.run("decline", ids[study_uid(8)], "--reason", "wrong department")
        b.run("accept", ids[study_uid(9)])
        wait_until(lambda: _state(a, ids[study_uid(8)]) == "declined", "not declined", 60)
        wait_until(lambda: _state(a, ids[study_uid(9)]) == "delivered", "not delivered", 60)
        told = next(t for t in a.json("transfers")["transfers"] if t["state"] == "declined")
        assert "wrong department" in told["reason"]
    finally:
        config.write_text(text)
        b.stop()
        b.start()


def _offers(node: Node) -> list[dict[str, str]]:
    transfers = node.json("transfers")["transfers"]
    return [t for t in transfers if t["state"] == "held" and t["direction"] == "receive"]


def _state(node: Node, transfer_id: str) -> str:
    transfers = node.json("transfers")["transfers"]
    return next(str(t["state"]) for t in transfers if t["transfer_id"] == transfer_id)


def _chunks(node: Node) -> int:
    return sum(1 for p in (node.home / "chunks").rglob("*") if p.is_file())


def test_cancelled_transfer_leaves_nothing_at_the_receiver(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    imported(a, write_study(tmp_path / "s", 11, 4))
    before = _chunks(b)
    config = b.home / "emix.toml"
    text = config.read_text()
    config.write_text(text.replace('# incoming = "accept"', 'incoming = "ask"'))
    b.stop()
    b.start()
    sent = a.json("send", study_uid(11), b.display_name)["transfers"][0]
    wait_until(lambda: len(_offers(b)) == 1, "the offer does not arrive")
    config.write_text(text)
    b.stop()
    a.run("cancel", sent["transfer_id"])
    b.start()
    wait_until(lambda: _state(b, sent["transfer_id"]) == "cancelled", "it is not told", 60)
    assert _state(a, sent["transfer_id"]) == "cancelled"
    assert not _offers(b)
    assert _chunks(b) == before
    a.run("cancel", sent["transfer_id"])  # once more is no error


def _error(node: Node, *arguments: str) -> str:
    with pytest.raises(CommandFailed) as caught:
        node.run(*arguments)
    return str(caught.value)


def test_delete_removes_envelope_rows_and_chunks(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    chunks, envelopes = _chunks(a), len(list((a.home / "envelopes").iterdir()))
    imported(a, write_study(tmp_path / "s", 12, 4))
    assert _chunks(a) > chunks
    a.run("delete", study_uid(12), "--yes")
    assert _chunks(a) == chunks
    assert len(list((a.home / "envelopes").iterdir())) == envelopes
    assert "no study matches" in _error(a, "study", study_uid(12))


def test_backup_restored_elsewhere_is_the_same_node(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    imported(a, write_study(tmp_path / "s", 13, 4))
    a.run("backup", str(tmp_path / "earlier"))
    told = a.json("backup", "--base", str(tmp_path / "earlier"), str(tmp_path / "backup"))
    assert 0 < told["linked"] == len(list((tmp_path / "earlier" / "chunks").glob("*/*")))
    shutil.rmtree(tmp_path / "earlier")
    a.run("backup", "verify", str(tmp_path / "backup"))
    moved = Node(tmp_path, "moved", a.display_name)
    assert not (tmp_path / "backup" / "host.key").exists()
    moved.run("restore", str(tmp_path / "backup"), "--recovery-kit", str(a.kit))
    config = (moved.home / "emix.toml").read_text()
    for port in (a.addresses["peer"], a.addresses["introduction"]):
        config = config.replace(port, "127.0.0.1:0")
    (moved.home / "emix.toml").write_text(config)
    moved.start()
    try:
        assert moved.json("id") == a.json("id")
        moved.run("store", "check", "--read-data")
        moved.run("export", study_uid(13), str(tmp_path / "out"))
        out = {p.read_bytes() for p in (tmp_path / "out").rglob("IM*")}
        assert out == {p.read_bytes() for p in (tmp_path / "s").iterdir()}
    finally:
        moved.stop()


def test_watch_is_ended_by_ctrl_c_and_nothing_was_interrupted(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    imported(a, write_study(tmp_path / "s", 32, 1))
    process = interruptible(a.command("transfers", "--watch"))
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Open transfers and their changes")
    a.run("send", study_uid(32), b.display_name)  # what had ended before would be no news
    assert b.display_name in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")


def test_init_checks_everything_before_it_makes_anything(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for wrong in (
        ("--name", "two\nlines"),
        ("--name", "X", "--peer-listen", "nowhere"),
        ("--name", "X", "--recovery-kit", str(tmp_path / "no" / "kit")),
    ):
        kit = () if "--recovery-kit" in wrong else ("--recovery-kit", str(tmp_path / "kit"))
        done = subprocess.run(
            [sys.executable, "-m", "node", "--home", str(home), "init", "--host-key", *wrong, *kit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        assert not home.exists()


def test_odd_names_and_folders_do_not_end_an_import(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = write_study(tmp_path / "s", 17, 2)
    Path(os.fsdecode(bytes(folder) + b"/bad\xff\xfename.txt")).write_text("x")
    with zipfile.ZipFile(folder / "damaged.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", make_instance(17, 3))
    data = bytearray((folder / "damaged.zip").read_bytes())
    data[60:90] = bytes(30)
    (folder / "damaged.zip").write_bytes(data)
    answer = a.json("import", str(folder), statuses=(1,))
    assert answer["summary"]["carried"] == 2
    assert len(answer["findings"]) == 2


def test_second_node_on_one_home_says_so(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    assert "another process is using" in _error(a, "serve")


def test_errors_name_the_next_step(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    nowhere = Node(tmp_path, "nowhere", "")
    assert "emix init" in _error(nowhere, "status")
    assert "emix studies" in _error(a, "study", "9.9.9")
    assert "emix peers" in _error(a, "send", study_uid(1), "Nobody")
    assert "emix peers" in _error(a, "send", str(tmp_path), "Nobody")  # before it is imported
    assert "--at" in _error(a, "peers", "pair", a.json("id")["facility_id"])
    assert "typing error" in _error(a, "peers", "pair", "A" * 56, "--at", "127.0.0.1:1")


def test_pairing_by_short_string_needs_both_people(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    other = Node(tmp_path, "other", "Other Clinic")
    other.make()
    other.start()
    try:
        other.run("peers", "pair", "--at", a.addresses["introduction"])
        there = other.run("peers", "confirm").splitlines()[1].split()[0]
        here = a.run("peers", "confirm").splitlines()[1].split()[0]
        assert here == there
        assert "do not pair" in _error(a, "peers", "confirm", "AAAA-AAAA")
        a.run("peers", "confirm", here)
        other.run("peers", "confirm", there)
        wait_until(lambda: other.json("peers")["peers"][0]["state"] == "connected", "not connected")
        again = _error(other, "peers", "pair", "--at", a.addresses["introduction"])
        assert "Pair by ID instead" in again
    finally:
        other.stop()
        a.run("peers", "remove", "Other Clinic", "--yes")


def grpcurl_command(node: Node, *arguments: str, data: str = "") -> list[str]:
    """Return a command line of the stock grpcurl for a node's admin socket."""
    binary = str(Path(sys.executable).with_name("grpcurl"))
    given = ["-d", data] if data else []
    socket = str(node.home / "admin.sock")
    return [binary, "-plaintext", "-unix", *given, socket, *arguments]


def grpcurl(node: Node, *arguments: str, data: str = "") -> str:
    command = grpcurl_command(node, *arguments, data=data)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stock_grpcurl_lists_describes_calls_and_watches(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    imported(a, write_study(tmp_path / "s", 14, 2))
    assert "emix.admin.v1.TransferService" in grpcurl(a, "list").split()
    described = grpcurl(a, "describe", "emix.admin.v1.PeerService")
    assert "rpc RemovePeer" in described
    peers = json.loads(grpcurl(a, "emix.admin.v1.PeerService/ListPeers"))["peers"]
    assert b.display_name in {p["display_name"] for p in peers}
    query = json.dumps({"query": study_uid(14)})
    studies = json.loads(grpcurl(a, "emix.admin.v1.StudyService/ListStudies", data=query))
    assert studies["studies"][0]["instances"] == "2"  # so does protobuf's own JSON
    health = json.loads(grpcurl(a, "grpc.health.v1.Health/Check"))
    assert health["status"] == "SERVING"

    watch = grpcurl_command(a, "emix.admin.v1.TransferService/WatchTransfers")
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as process:
        try:
            sent = a.json("send", study_uid(14), b.display_name, "--wait")["transfers"][0]
            assert process.stdout is not None
            wanted, is_it = sent["transfer_id"], False
            for line in process.stdout:
                is_it = wanted in line or (is_it and "transfer_id" not in line)
                if is_it and '"delivered"' in line:
                    break
        finally:
            process.terminate()
    transfers = json.loads(grpcurl(a, "emix.admin.v1.TransferService/ListTransfers"))
    assert wanted in {t["transfer_id"] for t in transfers["transfers"]}


def test_grpcurl_works_with_the_shipped_protoset(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    protoset = Path(__file__).resolve().parents[2] / "proto" / "emix" / "emix.protoset"
    command = grpcurl_command(a, "emix.admin.v1.NodeService/GetStatus")
    command[1:1] = ["-protoset", str(protoset)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert a.display_name in done.stdout


def test_attributes_find_studies_series_and_instances_that_came_from_elsewhere_too(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    imported(a, write_study(tmp_path / "s", 61, 4))
    a.run("send", study_uid(61), b.display_name, "--wait")
    for node in nodes:
        (study,) = node.json("query", f"StudyInstanceUID={study_uid(61)}")["matches"]
        assert study["values"]["NumberOfStudyRelatedInstances"] == "4"
        name = study["values"]["PatientName"]
        keys = (f"PatientName={name.lower()[:4]}*", f"StudyInstanceUID={study_uid(61)}")
        (series,) = node.json("query", "--level", "series", *keys)["matches"]
        images = node.json("query", "--level", "image", *keys)["matches"]
        assert len({m["values"]["SOPInstanceUID"] for m in images}) == 4
        assert {m["values"]["Rows"] for m in images} == {"64"}
        assert {m["values"]["Modality"] for m in images} == {series["values"]["Modality"]}
        shown = node.run("query", "--level", "image", *keys, "--limit", "2").splitlines()
        assert len(shown) == 3
        assert "SOP INSTANCE UID" in shown[0]
    assert a.run("query", "PatientID=nobody").strip() == "Nothing matches."
    for wrong, said in (
        ("Modality=CT", "search at that level"),
        ("PatientWeight=70", "no such key"),
        ("PatientID=1 PatientID=2", "given twice"),
        ("StudyDate=yesterday", "days are written 20261124"),
    ):
        with pytest.raises(CommandFailed, match=f"(?s)ended with 2: .*{said}"):
            a.run("query", *wrong.split())
