"""The pictures of states in the documents show what the code has, and nothing else."""

import ast
import re
from pathlib import Path

import pytest

from node.domain.connections import ConnectionState
from node.domain.network import Standing
from node.domain.packages import PackageState
from node.domain.transfers import Direction, State, can_follow
from node.store import schema

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "states.md").read_text()
END = "[*]"


def arrows(heading: str) -> list[tuple[str, str]]:
    """Return what the picture under a heading shows: from where to where."""
    section = re.split(
        r"^#+ ", TEXT.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE
    )[0]
    picture = section.partition("```mermaid\nstateDiagram-v2\n")[2].partition("```")[0]
    assert picture, heading
    lines = [line.strip() for line in picture.splitlines()]
    shown = [re.fullmatch(r"(\S+) --> (\S+): .+", line) for line in lines]
    assert all(shown), lines
    return [(one[1], one[2]) for one in shown if one]


def states(*headings: str) -> set[str]:
    return {name for h in headings for pair in arrows(h) for name in pair} - {END}


def test_states_of_packages_are_those_of_the_enum_and_of_the_schema() -> None:
    [known] = re.findall(r"state TEXT NOT NULL CHECK \(state IN \(([^)]*)\)\)", schema._INITIAL)
    assert states("Package") == set(PackageState) == set(re.findall(r"'(\w+)'", known))


SIDES = {"Transfer at the sender": Direction.SEND, "Transfer at the receiver": Direction.RECEIVE}


def test_states_of_transfers_are_those_of_the_enum() -> None:
    assert states(*SIDES) == {state.value for state in State}


@pytest.mark.parametrize("side", SIDES)
def test_every_step_of_a_transfer_is_one_that_the_code_lets_pass(side: str) -> None:
    steps = arrows(side)
    assert len(steps) == len(set(steps))
    for before, after in steps:
        if END not in (before, after) and after != State.DELIVERED:  # a receipt asks for no state
            assert can_follow(State(before), State(after)), (before, after)


@pytest.mark.parametrize("side", SIDES)
def test_whatever_is_not_final_can_come_to_each_end(side: str) -> None:
    ends = {state.value for state in State if state.is_final} - {State.DELIVERED.value}
    for name in states(side):
        following = {after for before, after in arrows(side) if before == name}
        assert following >= ends or State(name).is_final, name


def test_states_of_connections_are_those_of_the_enum() -> None:
    assert states("Connection") == set(ConnectionState)


def test_standings_are_those_of_the_enum() -> None:
    assert states("Membership") == {standing.name.lower() for standing in Standing}


def test_every_task_that_the_node_starts_stands_in_its_tree() -> None:
    tree = TEXT.partition("## The nursery tree of a node")[2]
    started = set()
    for path in (ROOT / "node" / "app").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "start_soon":
                started.add(_plain(ast.unparse(node.args[0])))
    assert len(started) > 10
    started.remove("look")  # the doctor's, for the time of one question
    assert {name for name in started if name not in tree} == set()


def _plain(called: str) -> str:
    """Return how a page writes what is started: `self._own.keep_fresh` as `own.keep_fresh`."""
    return re.sub(r"\(.*?\)", "", called).removeprefix("self.").removeprefix("_")
