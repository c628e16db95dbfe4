"""Whatever one peer does, another's transfers and the owner's commands go on.

`python -m bench.fairness` measures it for its figures; here bounds are held that a loaded machine
does not break by itself, since the baseline runs on the same.
"""

import pytest

from bench.fairness import Result, line, run

pytestmark = [pytest.mark.integration, pytest.mark.alone]
# The floods of refused calls are held by processor time, in `test_peer_floods`.
ATTACKS = ("calls", "offers", "manifests", "chunks")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Each attack beside its baseline, on the same two nodes."""
    folder = tmp_path_factory.mktemp("fairness")
    return {result.attack: result for result in run(folder, ATTACKS, rounds=1)}


@pytest.mark.timeout(480)
@pytest.mark.parametrize("attack", ATTACKS)
def test_honest_peer_and_owner_go_on_while_another_does_its_worst(
    results: dict[str, Result], attack: str
) -> None:
    result = results[attack]
    print(line(result))
    assert result.kept > 0.4  # two cores that others use, too; see bench.fairness for the figures
    assert sorted(result.attacked.commands)[len(result.attacked.commands) // 2] < 2
