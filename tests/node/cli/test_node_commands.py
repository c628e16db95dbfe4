"""The node's identity, state, problems, store and backups on the command line."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.app import repairing
from node.app.home import Home, NewNode, make_home
from node.cli import node_commands
from node.crypto.digests import digest
from node.domain.ids import ChunkId, FacilityId
from node.errors import PeerUnreachable
from node.store.repair import Repaired
from node.terminal.output import show_time
from tests.support.answering import IDENTITY, AnsweringNode, run_emix, widest

STATUS, DIAGNOSE = "NodeService.GetStatus", "NodeService.Diagnose"
CHECK, BACKUP = "NodeService.CheckStore", "NodeService.Backup"
ID = str(FacilityId(b"\1" * 32))
DAY = 1_790_000_000
CHUNKS = (b"one" * 1000, b"another" * 1000)


def status(**changes: object) -> pb.GetStatusResponse:
    facts: dict[str, object] = {
        "facility_id": ID,
        "display_name": "Great Falls Clinic",
        "node_id": "NODE-1",
        "software": "emix 1.2",
        "started_seconds": DAY,
        "studies": 3,
        "instances": 1020,
        "sealed_bytes": 90_000_000,
        "free_bytes": 5_000_000_000,
        "open_transfers": 2,
        "held_instances": 4,
        "held_offers": 1,
        **changes,
    }
    return pb.GetStatusResponse(**facts)  # type: ignore[arg-type]


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            IDENTITY: pb.GetIdentityResponse(facility_id=ID, statements=b"statements"),
            STATUS: status(),
        },
    )


def facts(output: str) -> dict[str, str]:
    """Return what is shown by the names before it."""
    pairs = (line.strip().partition("  ") for line in output.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def test_id_alone_is_shown_where_no_person_reads_it(node: AnsweringNode) -> None:
    assert node.run("id").output == f"{ID}\n"
    assert node.json("id") == {"facility_id": ID}


def test_id_is_shown_as_a_code_on_a_terminal_or_if_asked(node: AnsweringNode) -> None:
    first, *code = node.run("id", "--qr").stdout.splitlines()
    assert first == ID
    assert len(code) > 10
    assert widest("\n".join(code)) <= 80
    assert node.run("id", width=80).stdout.splitlines()[1:]
    assert node.run("id", "--no-qr", width=80).stdout == f"{ID}\n"


def test_statements_for_pairing_are_exported(node: AnsweringNode, tmp_path: Path) -> None:
    file = tmp_path / "great-falls.emix"
    done = node.run("id", "--export", str(file))
    assert file.read_bytes() == b"statements"
    assert file.stat().st_mode & 0o777 == 0o644
    assert done.stdout == f"{ID}\n"
    assert done.stderr == f"Wrote {file}; the partner runs `emix peers pair --file`.\n"


def test_status_of_a_quiet_node_has_only_what_is_there(node: AnsweringNode) -> None:
    done = node.run("status")
    assert done.exit_code == 0
    shown = facts(done.stdout)
    assert shown["facility"] == f"Great Falls Clinic  {ID}"
    assert shown["running since"] == show_time(DAY)
    assert shown["studies"] == "3 (1020 instances)"
    assert shown["store"] == "90.0 MB, 5.0 GB free"
    assert shown["held"] == "4 instances, 1 offers"
    assert not {"pairing", "imports", "ALARM", "peer service"} & shown.keys()


def test_status_names_the_place_of_a_store_that_is_elsewhere(node: AnsweringNode) -> None:
    node.answers[STATUS] = status(chunk_place="s3://emix on objects.example.org")
    shown = facts(node.run("status").stdout)
    assert shown["store"] == "90.0 MB, in s3://emix on objects.example.org"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"waiting_pairings": 2}, "2 wait here: `emix peers confirm`"),
        ({"asking_facilities": 1}, "1 facility waits for this one to pair as well: `emix peers`"),
        ({"asking_facilities": 2}, "2 facilities wait for this one to pair as well: `emix peers`"),
        ({"unfinished_imports": 3}, "3 not finished; `emix imports` lists them"),
        ({"alarms": ["the disk is nearly full"]}, "ALARM  the disk is nearly full"),
    ],
)
def test_status_says_what_waits_for_a_person(
    node: AnsweringNode, changes: dict[str, object], text: str
) -> None:
    node.answers[STATUS] = status(**changes)
    assert text in node.run("status").stdout


def test_status_fits_80_columns(node: AnsweringNode) -> None:
    node.answers[STATUS] = status(
        display_name="Hospital of the Sisters of Charity of Leavenworth",
        peer_endpoint="imaging-exchange.radiology.hospital.example.org:7410",
        asking_facilities=2,
    )
    shown = node.run("status", width=80).stdout
    assert widest(shown) <= 80
    assert ID in shown


def test_status_in_json_has_alarms_and_numbers(node: AnsweringNode) -> None:
    node.answers[STATUS] = status(alarms=["the disk is nearly full"])
    shown = node.json("status")
    assert (shown["alarms"], shown["instances"]) == (["the disk is nearly full"], 1020)


def finding(level: str, advice: str = "") -> pb.Finding:
    return pb.Finding(subject="disk", level=level, text=f"a {level}", advice=advice)


@pytest.mark.parametrize(("level", "exit_code"), [("ok", 0), ("warning", 0), ("problem", 1)])
def test_doctor_fails_for_problems_only(node: AnsweringNode, level: str, exit_code: int) -> None:
    node.answers[DIAGNOSE] = pb.DiagnoseResponse(findings=[finding(level), finding("ok")])
    done = node.run("doctor")
    assert done.exit_code == exit_code
    assert done.stdout.splitlines()[0] == f"{level:>8}  disk: a {level}"
    assert len(done.stdout.splitlines()) == 2
    assert node.json("doctor", status=exit_code)["findings"][0]["level"] == level


def test_doctor_says_what_to_do(node: AnsweringNode) -> None:
    findings = [finding("problem", "free some space"), finding("ok")]
    node.answers[DIAGNOSE] = pb.DiagnoseResponse(findings=findings)
    assert node.run("doctor").stdout.splitlines()[1] == "          -> free some space"


@pytest.mark.parametrize(
    ("options", "how"), [((), "looked at"), (("--read-data",), "read and opened")]
)
def test_store_without_a_problem_is_checked_as_asked(
    node: AnsweringNode, options: tuple[str, ...], how: str
) -> None:
    node.answers[CHECK] = [pb.CheckStoreResponse(chunks_done=n) for n in (5, 9)]
    done = node.run("store", "check", *options)
    assert (done.exit_code, done.stdout) == (0, f"9 chunks {how}, 0 problems.\n")
    assert node.requests(CHECK) == [pb.CheckStoreRequest(read_data=bool(options))]


def test_every_problem_of_the_store_is_named_and_fails_the_check(node: AnsweringNode) -> None:
    node.answers[CHECK] = [
        pb.CheckStoreResponse(chunks_done=5, problem="chunk abc is missing"),
        pb.CheckStoreResponse(chunks_done=9, problem="chunk def is damaged"),
        pb.CheckStoreResponse(chunks_unopened=0),
    ]
    done = node.run("store", "check")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "PROBLEM  chunk abc is missing",
        "PROBLEM  chunk def is damaged",
        "9 chunks looked at, 2 problems.",
    ]
    assert node.json("store", "check", status=1) == {
        "chunks": 9,
        "problems": ["chunk abc is missing", "chunk def is damaged"],
        "unopened": 0,
    }


def test_check_says_what_was_never_opened(node: AnsweringNode) -> None:
    node.answers[CHECK] = [
        pb.CheckStoreResponse(chunks_done=9),
        pb.CheckStoreResponse(chunks_unopened=4),
    ]
    done = node.run("store", "check")
    assert done.exit_code == 0
    assert "9 chunks looked at, 0 problems. 4 chunks were not opened since" in done.stdout
    assert node.json("store", "check") == {"chunks": 9, "problems": [], "unopened": 4}


def test_check_that_breaks_off_is_not_taken_for_a_whole_one(node: AnsweringNode) -> None:
    node.answers[CHECK] = [pb.CheckStoreResponse(chunks_done=5), PeerUnreachable("it stops")]
    done = node.run("store", "check")
    assert (done.exit_code, done.stdout) == (20, "")


def test_repair_names_what_is_not_whole_and_fails_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    make_home(home, NewNode("Clinic", tmp_path / "kit", None, "127.0.0.1:0", "127.0.0.1:0"))
    found = [Repaired("aaa"), Repaired("bbb", missing_chunks=2), Repaired("ccc", problem="no key")]
    repaired = list[tuple[Home, bytes | None]]()

    def repair(home: Home, passphrase: bytes | None) -> Sequence[Repaired]:
        repaired.append((home, passphrase))
        return found

    monkeypatch.setattr(repairing, "repair_home", repair)
    done = run_emix(home.root, "store", "repair")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "PROBLEM  bbb: 2 chunks are missing",
        "PROBLEM  ccc: no key",
        "3 packages without rows, 1 repaired whole.",
    ]
    del found[1:]
    (tmp_path / "passphrase").write_text("a long passphrase 1")
    options = ("--passphrase-file", f"{tmp_path}/passphrase")
    done = run_emix(home.root, "store", "repair", *options)
    assert (done.exit_code, done.stdout) == (0, "1 packages without rows, 1 repaired whole.\n")
    assert [passphrase for _, passphrase in repaired] == [None, b"a long passphrase 1"]


def test_repair_of_what_is_no_home_changes_nothing(tmp_path: Path) -> None:
    done = run_emix(tmp_path / "none", "store", "repair")
    assert done.exit_code != 0
    assert not (tmp_path / "none").exists()


def name_of(chunk: bytes) -> str:
    chunk_id = ChunkId(digest(chunk))
    return f"chunks/{str(chunk_id)[:2]}/{chunk_id}"


def piece(name: str, data: bytes) -> pb.BackupResponse:
    return pb.BackupResponse(piece=pb.BackupPiece(name=name, data=data))


NEEDED = [piece(name, name.encode()) for name in ("metadata.db", "keyring", "emix.toml")]
WHOLE = [
    pb.BackupResponse(size=pb.BackupSize(files=5, bytes=10_034)),
    *NEEDED,
    piece(name_of(CHUNKS[0]), CHUNKS[0]),
    piece(name_of(CHUNKS[1]), CHUNKS[1][:500]),
    piece("", CHUNKS[1][500:]),
    pb.BackupResponse(end=pb.BackupEnd(files=5)),
]


def test_backup_is_written_by_the_command_and_verified_without_a_node(
    node: AnsweringNode, tmp_path: Path
) -> None:
    node.answers[BACKUP] = WHOLE
    target = tmp_path / "copy"
    done = node.run("backup", str(target))
    assert (done.exit_code, done.stdout) == (0, f"5 files, 10.0 kB in {target}.\n")
    assert node.requests(BACKUP) == [pb.BackupRequest(destination=str(target))]
    assert (target / "keyring").read_bytes() == b"keyring"
    assert (target / name_of(CHUNKS[1])).read_bytes() == CHUNKS[1]
    done = run_emix(tmp_path / "none", "backup", "verify", str(target))
    assert (done.exit_code, done.stdout) == (0, "5 files, 10.0 kB, 0 problems.\n")


def test_backup_in_json_has_its_size_and_no_problems(node: AnsweringNode, tmp_path: Path) -> None:
    node.answers[BACKUP] = WHOLE
    assert node.json("backup", "make", str(tmp_path / "copy")) == {
        "directory": str(tmp_path / "copy"),
        "files": 5,
        "bytes": sum(map(len, CHUNKS)) + len("metadata.dbkeyringemix.toml"),
        "linked": 0,
        "damaged": [],
        "unreadable": [],
    }


def test_backup_of_a_damaged_node_names_what_is_damaged_and_has_the_rest(
    node: AnsweringNode, tmp_path: Path
) -> None:
    damaged = name_of(CHUNKS[0])
    unreadable = pb.BackupUnreadable(name="envelopes/x", reason="an I/O error")
    node.answers[BACKUP] = [
        *NEEDED,
        piece(damaged, b"something else"),
        pb.BackupResponse(unreadable=unreadable),
        pb.BackupResponse(end=pb.BackupEnd(files=4)),
    ]
    target = tmp_path / "copy"
    done = node.run("backup", str(target))
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == [
        "PROBLEM  envelopes/x: an I/O error",
        f"PROBLEM  {damaged}: it is damaged in the node",
    ]
    assert "emix store check --read-data" in done.stdout
    done = run_emix(tmp_path / "none", "backup", "verify", str(target))
    assert done.exit_code == 1
    assert f"PROBLEM  {damaged} was damaged already when the backup was made" in done.stdout


@pytest.mark.parametrize(
    "events", [WHOLE[:-1], [*WHOLE[:4], pb.BackupResponse(end=pb.BackupEnd(files=5))]]
)
def test_backup_that_did_not_come_whole_fails_and_leaves_nothing(
    node: AnsweringNode, tmp_path: Path, events: list[pb.BackupResponse]
) -> None:
    node.answers[BACKUP] = events
    done = node.run("backup", str(tmp_path / "copy"))
    assert (done.exit_code, done.stdout) == (10, "")
    assert "the node did not send the whole backup; try again" in done.stderr
    assert not (tmp_path / "copy").exists()


def test_interrupted_backup_leaves_nothing(node: AnsweringNode, tmp_path: Path) -> None:
    def interrupted(requests: Iterator[pb.BackupRequest]) -> Iterator[pb.BackupResponse]:
        next(requests)
        yield from WHOLE[:4]
        raise KeyboardInterrupt

    node.answers[BACKUP] = interrupted
    done = node.run("backup", str(tmp_path / "copy"))
    assert done.exit_code == 130
    assert done.stderr == "emix: interrupted; the partial backup was removed\n"
    assert not (tmp_path / "copy").exists()


def test_backup_to_a_wrong_place_is_not_begun(node: AnsweringNode, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, text in {
        (f"{tmp_path}/full",): "is not empty; choose a new folder",
        (f"{node.home}/copy",): "must not be inside the home",
        (f"{tmp_path}/copy", "--mounted"): "nothing is mounted at",
        (f"{tmp_path}/copy", "--base", f"{tmp_path}/none"): "is not there; is its disk mounted?",
    }.items():
        done = node.run("backup", *arguments)
        assert (done.exit_code, text in done.stderr) == (3, True), done.stderr
    assert BACKUP not in node.names
    assert not (tmp_path / "copy").exists()


def test_second_backup_links_the_chunks_of_the_first(
    node: AnsweringNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_commands, "_HAD_AT_ONCE", 1)
    first, second = tmp_path / "first", tmp_path / "second"
    node.answers[BACKUP] = WHOLE
    node.run("backup", str(first))
    digests = [digest(chunk) for chunk in CHUNKS]
    node.answers[BACKUP] = [
        *NEEDED,
        pb.BackupResponse(had=pb.BackupHad(chunks=digests)),
        pb.BackupResponse(end=pb.BackupEnd(files=5)),
    ]
    node.sent.clear()
    done = node.run("backup", "--base", str(first), str(second))
    assert done.exit_code == 0
    beginning, *others = node.requests(BACKUP)
    assert beginning == pb.BackupRequest(destination=str(second))
    assert [len(request.had_chunks) for request in others] == [1, 1]
    assert {request.had_chunks[0] for request in others} == set(digests)
    assert f"2 of them are links to files of {first}." in done.stdout
    name = name_of(CHUNKS[0])
    assert (second / name).stat().st_ino == (first / name).stat().st_ino


def test_verification_names_what_is_missing_and_what_is_damaged(
    node: AnsweringNode, tmp_path: Path
) -> None:
    target = tmp_path / "copy"
    node.answers[BACKUP] = WHOLE
    node.run("backup", str(target))
    (target / "keyring").unlink()
    (target / name_of(CHUNKS[0])).write_bytes(b"e" * len(CHUNKS[0]))
    done = run_emix(tmp_path / "none", "backup", "verify", str(target))
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "PROBLEM  keyring is missing",
        f"PROBLEM  {name_of(CHUNKS[0])} is damaged",
        "5 files, 10.0 kB, 2 problems.",
    ]
    shown = node.json("backup", "verify", str(target), status=1)
    assert shown["problems"][0] == {"file": "keyring", "problem": "is missing"}
    assert (shown["files"], len(shown["problems"])) == (5, 2)
