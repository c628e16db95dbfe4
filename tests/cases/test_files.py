"""What is said of odd files, one by one: the same whichever way their bytes come."""

from pathlib import Path

import pytest

from node.dicom.examine import examine, examine_bytes, verdict_on
from node.dicom.stream import Refused
from node.dicom.walker import Walker
from node.domain.verdicts import Examined, Verdict
from tests.cases import Case
from tests.cases.files import CASES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SMALL = [case for case in CASES if not case.is_large]
_ODD_SIZES = (7, 64, 1001)


def _named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", SMALL, ids=_named)
def test_case_is_judged_right(case: Case, tmp_path: Path) -> None:
    case.make(tmp_path)
    found = [examine_bytes(path.read_bytes()) for path in sorted(tmp_path.iterdir())]
    verdicts = [one.verdict for one in found]
    reasons = "\n".join(reason for one in found for reason in one.reasons)
    right = case.right
    assert (
        verdicts.count(Verdict.CARRY),
        verdicts.count(Verdict.FLAG),
        verdicts.count(Verdict.REFUSE),
    ) == (right.carried - right.flagged, right.flagged, right.refused), reasons
    assert [word for word in right.words if word not in reasons] == []


@pytest.mark.parametrize("case", SMALL, ids=_named)
@pytest.mark.parametrize("size", _ODD_SIZES)
def test_case_is_judged_alike_in_windows(case: Case, size: int, tmp_path: Path) -> None:
    case.make(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        if len(content) > 100_000:
            pytest.skip("too large to be cut into such windows")
        assert _in_windows(content, size) == examine_bytes(content)


def _in_windows(content: bytes, size: int) -> Examined:
    walker = Walker(len(content))
    try:
        for start in range(0, len(content), size):
            window = content[start : start + size]
            walker.feed(window, is_last=start + size >= len(content))
        if not content:
            walker.feed(b"", is_last=True)
    except Refused as exc:
        return verdict_on(exc, walker)
    return examine(walker)
