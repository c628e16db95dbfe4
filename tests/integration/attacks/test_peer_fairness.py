"""Whatever one peer does, another's transfers and the owner's commands go on.

`python -m bench.fairness` measures it for its figures; here bounds are held that a loaded machine
does not break by itself, since the baseline runs on the same.
"""

from pathlib import Path

import pytest

from bench.fairness import line, run

pytestmark = [pytest.mark.integration, pytest.mark.alone]
# The floods of refused calls are held by processor time, in `test_peer_floods`.
ATTACKS = ("calls", "offers", "manifests", "chunks")


@pytest.mark.timeout(480)
@pytest.mark.parametrize("attack", ATTACKS)
def test_honest_peer_and_owner_go_on_while_another_does_its_worst(
    tmp_path: Path, attack: str
) -> None:
    (result,) = run(tmp_path, (attack,), rounds=1)
    print(line(result))
    assert result.kept > 0.4  # two cores that others use, too; see bench.fairness for the figures
    assert sorted(result.attacked.commands)[len(result.attacked.commands) // 2] < 2
