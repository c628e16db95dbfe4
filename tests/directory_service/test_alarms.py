"""What somebody tried is shown for a week, and then makes room."""

from directory_service.alarms import Alarms

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_alarm_ends_a_week_after_it_was_tried_last_and_without_a_restart() -> None:
    clock = Clock()
    alarms = Alarms(clock)
    alarms.note("a login that was used before was shown again")
    clock.now += 6 * DAY
    alarms.note("a login that was used before was shown again")
    clock.now += 6 * DAY
    [text] = alarms.texts()
    assert "2 times" in text
    clock.now += DAY
    assert alarms.texts() == []
    assert alarms.total == 2  # a count for Prometheus never goes back


def test_old_alarms_keep_no_place_from_new_ones() -> None:
    clock = Clock()
    alarms = Alarms(clock)
    for n in range(200):
        alarms.note(f"ticket {n}")
    assert len(alarms.texts()) == 100
    clock.now += 8 * DAY
    alarms.note("the letter was shown by another facility")
    [text] = alarms.texts()
    assert text.startswith("the letter")


def test_acknowledged_alarm_is_shown_again_when_it_is_tried_again() -> None:
    alarms = Alarms(Clock())
    alarms.note("a ticket came twice")
    alarms.note("a login came twice")
    assert alarms.acknowledge() == 2
    assert (alarms.texts(), alarms.acknowledge()) == ([], 0)
    alarms.note("a ticket came twice")
    [text] = alarms.texts()
    assert "1 times" in text
    assert alarms.total == 3
