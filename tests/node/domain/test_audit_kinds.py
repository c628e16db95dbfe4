"""Every kind of entry that is written has a meaning, and a kind that is none is said to be so."""

import ast
import re
from pathlib import Path

import pytest

from node.domain.audit_kinds import KINDS, check_beginning
from node.errors import UsageError

_NODE = Path(__file__).parents[3] / "node"
_KIND = re.compile(r"[a-z]+\.[a-z]+(-[a-z]+)*")


def _written() -> set[str]:
    """Return what looks like a kind in the store, the use cases and the commands on keys."""
    found = set()
    for room in ("store", "exchange", "app"):
        for path in (_NODE / room).rglob("*.py"):
            for each in ast.walk(ast.parse(path.read_text())):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    found.add(each.value)
    return set(filter(_KIND.fullmatch, found))


def test_every_kind_that_is_written_is_listed_and_no_other() -> None:
    beginnings = {kind.partition(".")[0] for kind in KINDS}
    written = {text for text in _written() if text.partition(".")[0] in beginnings}
    written -= {"node.lock"}  # a file
    assert written == set(KINDS)


def test_each_meaning_is_a_short_sentence_without_its_stop() -> None:
    for kind, meaning in KINDS.items():
        assert _KIND.fullmatch(kind)
        assert 10 < len(meaning) < 80
        assert meaning[0].islower()
        assert not meaning.endswith(".")
    assert len(set(KINDS.values())) == len(KINDS)
    assert list(KINDS) == sorted(KINDS)


@pytest.mark.parametrize("text", ["", "study.", "study.exported", "alarm", "s"])
def test_beginning_of_a_kind_is_taken(text: str) -> None:
    check_beginning(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("study.export3d", "study.exported"), ("exported", "study.exported"), ("Study.", "study.")],
)
def test_what_is_no_kind_is_said_to_be_so(text: str, meant: str) -> None:
    with pytest.raises(UsageError, match="emix audit kinds") as caught:
        check_beginning(text)
    assert meant in str(caught.value)
