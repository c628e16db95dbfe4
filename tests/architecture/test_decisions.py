"""Decisions: one dated file each, and an index that names them all."""

import datetime
import re
from pathlib import Path

import pytest

DECISIONS = Path(__file__).parents[2] / "docs" / "decisions"
FILES = sorted(p for p in DECISIONS.glob("*.md") if p.name != "README.md")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.name)[:4])
def test_decision_has_a_number_a_date_and_says_what_was_decided(path: Path) -> None:
    name = re.fullmatch(r"(\d{4})(-[a-z0-9]+)+\.md", path.name)
    assert name, f"{path.name}: NNNN-short-title.md"
    heading, _, date, _, decision, *rest = path.read_text().splitlines()
    assert heading.startswith(f"# {int(name[1])}. ")
    datetime.date.fromisoformat(date.removeprefix("Date: "))
    assert decision.startswith("**Decision.** ")
    labels = re.findall(r"^\*\*(\w+)\.\*\*", "\n".join(rest), re.MULTILINE)
    assert labels == [each for each in ("Why", "Rejected", "Price") if each in labels]


def test_index_names_every_decision_with_its_title_and_date() -> None:
    expected_rows, expected_links = [], []
    for path in FILES:
        heading, _, date, *_ = path.read_text().splitlines()
        number, _, title = heading.removeprefix("# ").partition(". ")
        expected_rows.append(f"| [{number}] | {title} | {date.removeprefix('Date: ')} |")
        expected_links.append(f"[{number}]: {path.name}")
    lines = (DECISIONS / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| [")] == expected_rows
    assert [line for line in lines if re.match(r"\[\d+\]: ", line)] == expected_links


def test_numbers_are_given_once_and_none_is_left_out() -> None:
    assert FILES
    assert [int(path.name[:4]) for path in FILES] == list(range(1, len(FILES) + 1))
