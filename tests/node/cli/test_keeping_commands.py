"""`emix clock` and `emix retention`: what is confirmed, announced, kept and deleted."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import Denied
from tests.support.answering import AnsweringNode, widest

CONFIRM, APPLY = "NodeService.ConfirmClock", "NodeService.ApplyRetention"
PREVIEW = "NodeService.PreviewRetention"
UID = "1.2.826.0.1.3680043.10.1338.7.20261126.4711.12"


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(tmp_path / "home")


def entry(number: int, fate: str, expiring: int = 0) -> pb.RetentionEntry:
    return pb.RetentionEntry(
        number=number,
        study_instance_uid=UID,
        received_from="Billings Hospital and Medical Centre",
        received_seconds=1_800_000_000,
        fate=fate,
        expiring_seconds=expiring,
    )


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (0, "The clock is trusted already.\n"),
        (90, "It is 2 minutes ahead of what was known before.\n"),
        (-7200, "It is 2 hours behind what was known before.\n"),
        (1, "It is 1 s ahead of what was known before.\n"),
        (45, "It is 45 s ahead of what was known before.\n"),
    ],
)
def test_confirmed_clock_says_how_far_off_it_seemed(
    node: AnsweringNode, ahead: int, text: str
) -> None:
    node.answers[CONFIRM] = pb.ConfirmClockResponse(was_ahead_seconds=ahead)
    done = node.run("clock", "confirm")
    assert done.exit_code == 0
    assert done.stdout.endswith(text)
    assert ("trusted from now on" in done.stdout) == (ahead != 0)
    assert node.json("clock", "confirm") == {"was_ahead_seconds": ahead}
    assert node.names == [CONFIRM, CONFIRM]


def test_clock_that_may_not_be_confirmed_is_the_nodes_error(node: AnsweringNode) -> None:
    node.answers[CONFIRM] = Denied("only administrators may do this")
    done = node.run("clock", "confirm")
    assert (done.exit_code, done.stdout) == (Denied.exit_code, "")


def test_step_says_what_it_announced_and_deleted(node: AnsweringNode) -> None:
    node.answers[APPLY] = pb.ApplyRetentionResponse(announced=3, deleted=2)
    assert node.run("retention").stdout == "3 packages announced, 2 deleted.\n"
    assert node.json("retention") == {"announced": 3, "deleted": 2}
    assert node.names == [APPLY, APPLY]


def test_dry_run_deletes_nothing_and_says_what_becomes_of_each(node: AnsweringNode) -> None:
    entries = [
        entry(1, "unseen"),
        entry(2, "sending"),
        entry(3, "due"),
        entry(4, "announced", 1_800_500_000),
        entry(5, "deleted", 1_799_000_000),
    ]
    node.answers[PREVIEW] = [
        pb.PreviewRetentionResponse(days=90, entries=entries[:2]),
        pb.PreviewRetentionResponse(entries=entries[2:]),
    ]
    done = node.run("retention", "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = done.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["s1", "s2", "s3", "s4", "s5"]
    assert [row.partition(UID)[2].strip() for row in rows] == [
        "kept: nobody viewed it",
        "kept: it is being sent on",
        "announced next",
        "deleted from 2027-01-21",
        "deleted within the hour",
    ]
    assert "2027-01-15 08:00" in rows[0]
    assert node.names == [PREVIEW]


def test_dry_run_fits_eighty_columns(node: AnsweringNode) -> None:
    entries = [entry(123456, "unseen"), entry(2, "announced", 1_800_500_000)]
    node.answers[PREVIEW] = pb.PreviewRetentionResponse(days=90, entries=entries)
    done = node.run("retention", "--dry-run", width=80)
    assert widest(done.stdout) <= 80
    assert "s123456" in done.stdout
    assert "kept: nobody viewed it" in done.stdout
    assert "deleted from 2027-01-21" in done.stdout


def test_dry_run_says_why_nothing_is_deleted_now(node: AnsweringNode) -> None:
    node.answers[PREVIEW] = pb.PreviewRetentionResponse(
        days=90, entries=[entry(1, "deleted")], suspended="the clock is suspect"
    )
    done = node.run("retention", "--dry-run")
    assert done.stderr == "Nothing is deleted now: the clock is suspect.\n"
    assert node.json("retention", "--dry-run")["suspended"] == "the clock is suspect"


def test_dry_run_without_old_packages_or_without_a_policy_says_which(
    node: AnsweringNode,
) -> None:
    node.answers[PREVIEW] = pb.PreviewRetentionResponse(days=90)
    done = node.run("retention", "--dry-run")
    assert done.stdout == "Nothing that was received is older than 90 days.\n"
    node.answers[PREVIEW] = pb.PreviewRetentionResponse()
    done = node.run("retention", "--dry-run")
    assert done.stdout == "Nothing is ever deleted: retention_days in emix.toml is 0.\n"
    assert node.json("retention", "--dry-run") == {"days": 0, "suspended": "", "entries": []}
