"""The wall clock is believed beside what was known before, and beside other facilities'."""

import pytest

from node.system.clock import OFF_SECONDS, Clock

DAY, YEAR = 86400.0, 365.25 * 86400.0
START = 1.8e9


class Machine:
    """A wall clock that can be wrong, and one that counts since the machine started."""

    def __init__(self) -> None:
        self.passed, self.wrong = 100.0, 0.0

    def wall(self) -> float:
        return START + self.passed + self.wrong

    def steady(self) -> float:
        return self.passed


@pytest.fixture
def machine() -> Machine:
    return Machine()


def begun(machine: Machine, wrong: float, off: float = 3600.0) -> Clock:
    """Begin after the node was off for a while, with a clock that is wrong by so much."""
    believed = machine.wall()
    machine.passed += off
    machine.wrong = wrong
    clock = Clock(machine.wall, machine.steady)
    clock.begin(believed)
    return clock


@pytest.mark.parametrize("off", [10.0, DAY])
def test_right_clock_is_believed_at_once(machine: Machine, off: float) -> None:
    clock = begun(machine, 0.0, off)
    assert clock.now() == machine.wall()
    assert not clock.doubt


@pytest.mark.parametrize("wrong", [3 * DAY, 10 * YEAR, -56 * YEAR, -3 * DAY])
def test_wrong_clock_is_not_believed_and_heals_by_itself(machine: Machine, wrong: float) -> None:
    clock = begun(machine, wrong)
    before = clock.now()
    assert abs(before - START) < 3700, "the time goes on from the last that was believed"
    assert ("ahead of" if wrong > 0 else "behind") in clock.doubt
    machine.passed += 60
    assert clock.now() == before + 60
    machine.wrong = 0.0
    assert clock.now() == machine.wall()
    assert not clock.doubt


@pytest.mark.parametrize("wrong", [10 * YEAR, -YEAR])
def test_jump_while_it_runs_is_suspect(machine: Machine, wrong: float) -> None:
    clock = begun(machine, 0.0)
    clock.now()
    machine.wrong = wrong
    machine.passed += 30
    assert clock.now() == machine.wall() - wrong
    assert clock.jump == wrong
    assert clock.doubt


def test_small_step_back_is_followed_and_doubted(machine: Machine) -> None:
    """It may be the time before that was wrong: nothing of it is to stay."""
    clock = begun(machine, 7200.0)
    assert not clock.doubt
    clock.now()
    machine.wrong = 0.0
    assert clock.now() == machine.wall()
    assert "2 hours behind" in clock.doubt
    assert clock.heard("peer", machine.wall())
    assert not clock.doubt


def test_long_time_off_is_believed_once_a_facility_agrees(machine: Machine) -> None:
    clock = begun(machine, 0.0, 60 * DAY)
    assert clock.doubt
    assert not clock.heard("stranger", machine.wall() - YEAR)
    assert clock.doubt
    assert clock.heard("peer", machine.wall() + 5)
    assert clock.now() == machine.wall()
    assert not clock.heard("peer", machine.wall() + 5), "believed already"


def test_person_may_confirm_it(machine: Machine) -> None:
    clock = begun(machine, 0.0, 60 * DAY)
    clock.confirm()
    assert clock.now() == machine.wall()
    assert not clock.doubt


def test_nothing_is_deleted_by_a_clock_that_facilities_contradict(machine: Machine) -> None:
    clock = begun(machine, OFF_SECONDS / 2)
    assert not clock.doubt
    clock.heard("a", machine.wall() - machine.wrong)
    assert "differ" in clock.doubt
    assert clock.now() == machine.wall()
    clock.heard("b", machine.wall())
    assert not clock.doubt
    machine.passed += 2 * DAY  # what was heard long ago says nothing
    assert clock.agreeing == (0, 0)


def test_years_of_small_steps_are_followed(machine: Machine) -> None:
    clock = begun(machine, 0.0)
    for _ in range(1000):
        machine.passed += DAY
        machine.wrong += 30
        assert clock.now() == machine.wall()
