"""A day with the commands: names as people write them, and a CD that goes out in one command."""

import json
import os
import pty
import re
import subprocess
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from node.dicom.dicomdir import write_dicomdir
from tests.cases.encoding import directory
from tests.support.dicom_files import encode, make_dataset, make_instance, study_uid
from tests.support.nodes import CommandFailed, Node, two_nodes, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def write_cd(folder: Path, *studies: int, name: str = "Müller^Hans") -> Path:
    folder.mkdir()
    for study in studies:
        for number in (1, 2):
            ds = make_dataset(study, number)
            ds.SpecificCharacterSet = "ISO_IR 192"
            ds.PatientName = name
            ds.AccessionNumber = f"A{study}"
            ds.PatientBirthDate = "19500102"
            (folder / f"{study}-{number}.dcm").write_bytes(encode(ds))
    return folder


def test_cd_is_imported_and_sent_with_one_command(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = nodes
    cd = write_cd(tmp_path / "cd", 7001, 7002)
    sent = a.json("send", str(cd), b.display_name, "--wait")
    assert {t["state"] for t in sent["transfers"]} == {"delivered"}
    assert {t["study_instance_uid"] for t in sent["transfers"]} == {
        study_uid(7001),
        study_uid(7002),
    }
    assert sent["imports"][0]["summary"]["carried"] == 4
    again = a.json("send", str(cd), b.display_name, "--timeout", "60")
    assert (len(again["known"]), again["imports"][0]["summary"]["known"]) == (2, 4)
    said = a.run("send", study_uid(7001), b.display_name)
    assert "may have been deleted there since" in said
    assert re.search(r"delivered 20\d\d-", said)
    assert f"{b.display_name}, receipt of 20" in a.run("study", study_uid(7001))


def test_dicomdir_that_is_named_is_all_that_is_sent(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    study = 7091
    cd = write_cd(tmp_path / "cd", study, study + 1)
    path = cd / "DICOMDIR"
    path.write_bytes(directory([f"{study}-1", f"{study}-2"]))
    sent = a.json("send", str(path), b.display_name, "--wait")
    assert [t["study_instance_uid"] for t in sent["transfers"]] == [study_uid(study)]
    assert sent["imports"][0]["summary"]["carried"] == 2


def test_studies_are_chosen_by_number_accession_number_and_words(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    a.run("import", str(write_cd(tmp_path / "cd", 7003, 7004, name="Ångström^Ida")))
    [third] = a.json("study", "A7003")["sources"]
    assert third["birth_date"] == "19500102"
    number = f"s{third['number']}"
    sent = a.json("send", number, "a7004", b.display_name, "--wait")
    assert [t["study_instance_uid"] for t in sent["transfers"]] == [
        study_uid(7003),
        study_uid(7004),
    ]
    with pytest.raises(CommandFailed, match=r"ended with 5.*several studies match: s"):
        a.run("export", "angstrom", str(tmp_path / "none"))
    with pytest.raises(CommandFailed, match="add --yes"):  # nobody looks at what words found
        a.run("export", "angstrom a7004", str(tmp_path / "none"))
    a.run("export", "angstrom a7004", str(tmp_path / "out"), "--yes")
    assert len(list((tmp_path / "out").rglob("IM*"))) == 2
    with pytest.raises(CommandFailed, match="name the study by number"):
        a.run("delete", "angstrom a7004", "--yes")
    a.run("delete", number, "--yes")
    assert [s["study_instance_uid"] for s in a.json("studies", "Angstrom")["studies"]] == [
        study_uid(7004)
    ]


def test_deleting_a_study_names_what_stays_of_it(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = nodes
    cd = write_cd(tmp_path / "cd", 7025, 7026)
    for study in (7025, 7026):
        odd = cd / f"{study}-2.dcm"
        odd.write_bytes(b"MZ" + odd.read_bytes()[2:])
    a.run("import", str(cd), statuses=(1,))
    held = [str(one["held_id"]) for one in a.json("held")["held"]]
    said = a.run("delete", "A7025", "--yes", statuses=(1,))
    assert "Deleted 1 instances in 1 packages." in said
    assert f"1 held instances of it were not deleted: `emix held discard {held[0]}`" in said
    done = a.json("delete", "A7026", "--yes", statuses=(1,))
    assert (done["held_instances"], done["held"][0]["held_id"]) == (1, int(held[1]))
    # One that is none keeps the others from nothing.
    done = a.json("held", "discard", held[0], "999999", held[1], statuses=(4,))
    assert done["discarded"] == [int(number) for number in held]
    assert [(e["held_id"], e["code"]) for e in done["errors"]] == [(999999, "not-found")]


def test_streamed_file_that_cannot_be_read_is_refused_and_not_missing(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    folder = tmp_path / "SE000001"
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"IM{number:06d}").write_bytes(make_instance(7027, number))
    write_dicomdir(tmp_path)
    (folder / "IM000002").rename(tmp_path / "elsewhere")
    (folder / "IM000002").symlink_to(tmp_path / "elsewhere")
    (folder / "IM000003").unlink()
    (tmp_path / "elsewhere").unlink()
    named = str(tmp_path)
    for options in ((), ("--stream",)):
        done = a.json("import", named, *options, statuses=(1,))
        findings = [(f["label"], f["verdict"]) for f in done["findings"]]
        assert findings == [
            (f"{folder}/IM000002", "refuse"),
            (f"{folder}/IM000003", "missing"),
        ]
        summary = done["summary"]
        assert (summary["carried"] + summary["known"], summary["refused"]) == (1, 1)
        assert summary["missing"] == 1


def test_audit_log_is_asked_by_a_number_that_the_information_system_gave(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    ds = make_dataset(7021, 1)
    ds.AccessionNumber = "20261124007"
    (tmp_path / "x.dcm").write_bytes(encode(ds))
    a.run("import", str(tmp_path / "x.dcm"))
    a.run("export", "20261124007", str(tmp_path / "out"))
    exported = ("--action", "study.exported")
    for study in ("20261124007", study_uid(7021), study_uid(7021)[:-1]):
        [entry] = a.json("audit", "--study", study, *exported)["entries"]
        assert json.loads(entry["body"])["study"] == study_uid(7021), study
    a.run("delete", "20261124007", "--yes")
    assert len(a.json("audit", "--study", study_uid(7021), *exported)["entries"]) == 1


def test_one_study_that_is_not_there_keeps_no_other_from_being_sent(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    a.run("import", str(write_cd(tmp_path / "cd", 7005)))
    sent = a.json("send", "s999999", study_uid(7005), b.display_name, "--wait", statuses=(4,))
    assert [t["state"] for t in sent["transfers"]] == ["delivered"]
    assert [e["code"] for e in sent["errors"]] == ["not-found"]


def test_whatever_becomes_of_one_study_or_path_the_others_are_sent_and_told(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    a.run("import", str(write_cd(tmp_path / "cd", 7022, 7023, 7024, name="Zeppelin^Otto")))
    none, several = str(tmp_path / "none"), "zeppelin"
    named = ("nobody-here", none, several, "zeppelin a7024", "A7022")
    sent = a.json("send", *named, b.display_name, "--wait", statuses=(4,))
    assert [t["state"] for t in sent["transfers"]] == ["delivered"]
    assert [(e["study"], e["code"]) for e in sent["errors"]] == [
        ("nobody-here", "not-found"),
        (none, "usage"),
        (several, "conflict"),
        ("zeppelin a7024", "usage"),  # nobody is asked
    ]
    # Somebody is asked, and says no; then the other is sent, and told of.
    command = a.command("send", "zeppelin a7024", "A7023", b.display_name, "--wait")
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, timeout=60, input="n\n"
    )
    assert done.returncode == 1
    assert "emix: 1 of 2: nothing was done" in done.stderr
    assert ": delivered " in done.stdout
    assert not a.json("study", "A7024")["sources"][0]["sent_to"]


def test_transfer_that_waits_says_why_and_is_not_waited_for_longer_than_asked(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    b.stop()
    try:
        cd = str(write_cd(tmp_path / "cd", 7008))
        command = a.command("send", cd, b.display_name, "--timeout", "4")
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)
        assert done.returncode == 1
        assert f"-> {b.display_name}: pending" in done.stderr
        assert "it goes on by itself" in done.stderr
        assert "Not delivered within 4 s: t" in done.stderr
        [transfer] = a.json("transfers", "--open")["transfers"]
        assert transfer["reason"].endswith("it goes on by itself")
    finally:
        b.start()
    wait_until(lambda: not a.json("transfers", "--open")["transfers"], "it did not go on")


def test_offer_that_a_person_decides_says_so_on_both_sides(
    tmp_path: Path,
) -> None:
    with two_nodes(tmp_path) as (a, b):
        b.stop()
        b.set(incoming='"ask"')
        b.start()
        a.run("send", str(write_cd(tmp_path / "cd", 1)), b.display_name)
        wait_until(lambda: b.json("inbox")["offers"], "no offer came")
        [offer] = b.json("inbox")["offers"]
        assert f"emix accept t{offer['number']}" in offer["reason"]
        wait_until(
            lambda: "a person" in a.json("transfers", "--open")["transfers"][0]["reason"],
            "the sender is not told that a person decides",
        )
        b.run("peers", "pair", "--at", a.addresses["introduction"])
        assert b.json("status")["waiting_pairings"] == 1
        [waiting] = a.json("peers")["waiting_pairings"]
        assert waiting["short_string"] in a.run("peers")
        assert "emix peers confirm" in a.run("status")


def test_facility_that_paired_first_is_shown_and_paired_with_by_its_id(tmp_path: Path) -> None:
    a = Node(tmp_path, "great-falls", "Great Falls Clinic")
    b = Node(tmp_path, "billings", "Billings Hospital")
    try:
        for node in (a, b):
            node.make()
            node.start()
        a.run("id", "--export", str(tmp_path / "a.emix"))
        b.run("peers", "pair", "--file", str(tmp_path / "a.emix"))
        wait_until(lambda: a.json("status")["asking_facilities"] == 1, "nobody asks", 60)
        assert "1 facility waits for this one to pair as well" in a.run("status")
        identity = b.json("id")["facility_id"]
        shown = a.run("peers")
        assert "'Billings Hospital'" in shown
        assert identity in shown
        assert all(len(line) <= 80 for line in shown.splitlines())
        assert identity in a.run("peers", "pair", identity)  # no address, no file
        wait_until(lambda: a.json("peers")["peers"][0]["state"] == "connected", "not connected", 60)
        assert a.json("status")["asking_facilities"] == 0
        a.run("peers", "remove", b.display_name, "--yes")
        wait_until(
            lambda: "not paired" in b.json("peers")["peers"][0]["problem"], "it is still let in", 60
        )
        assert not a.json("peers")["asking_facilities"], "who was removed does not ask"
    finally:
        for node in (a, b):
            node.stop()


def test_paths_that_are_no_utf_8_are_imported_from_and_exported_to(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_cd(odd, 7006)
    (odd / "7006-1.dcm").rename(os.fsdecode(os.fsencode(odd) + b"/\xfc.dcm"))
    assert a.json("import", str(odd))["summary"]["carried"] == 2
    a.run("export", study_uid(7006), str(odd / "out"))
    assert len(list((odd / "out").rglob("IM*"))) == 2


@pytest.mark.parametrize("lang", ["C", "C.UTF-8"])
def test_lists_fit_eighty_columns(nodes: tuple[Node, Node], tmp_path: Path, lang: str) -> None:
    a, b = nodes
    if lang == "C":
        a.json("send", str(write_cd(tmp_path / "cd", 7007)), b.display_name, "--wait")
    environment = {**os.environ, "LC_ALL": lang}
    environment.pop("COLUMNS", None)
    for node, command in [
        (a, ["studies"]),
        (a, ["peers"]),
        (a, ["transfers"]),
        (a, ["receipts"]),
        (a, ["study", "A7007"]),
        (a, ["status"]),
        (a, ["held"]),
        (b, ["inbox"]),
        (a, ["audit", "--limit", "20"]),
    ]:
        lines = on_terminal(node.command(*command), environment)
        assert max(map(len, lines)) <= 80, (command, max(lines, key=len))
        assert "Traceback" not in " ".join(lines)


def on_terminal(command: list[str], environment: dict[str, str]) -> list[str]:
    """Return the lines that a command writes on a terminal of 80 columns, without colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 80))
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # so a terminal ends
            while data := os.read(ours, 65536):
                said += data
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).splitlines()


@pytest.mark.parametrize("command", [["studies"], ["status"], ["studies", "--json"]])
def test_full_standard_output_is_a_line_and_a_status(
    nodes: tuple[Node, Node], command: list[str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            nodes[0].command(*command), stdout=full, stderr=subprocess.PIPE, check=False, text=True
        )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    said = json.loads(done.stderr)["error"]["message"] if "--json" in command else done.stderr
    assert "the output cannot be written (No space left on device)" in said
