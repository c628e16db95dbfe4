"""A study closes when nobody uses it; what comes for it meanwhile waits, and finds it anew."""

import pytest
import trio
import trio.testing

from node.domain.patients import Patient
from node.exchange.ingest.open_studies import OpenStudies


async def test_study_that_is_used_does_not_close_before_it_is_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    studies, order = OpenStudies(), []

    async def use() -> None:
        async with studies.using("1"):
            await trio.sleep(5)
            order.append("left")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        nursery.start_soon(use)
        await trio.sleep(1)
        (study,), others = studies.begin_closing(["1", "1", "2"])
        assert others == []
        await study.unused_by_all()
        order.append("closes")
    assert order == ["left", "left", "closes"]


async def test_who_comes_while_a_study_closes_finds_it_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    studies = OpenStudies()
    async with studies.using("1") as first:
        assert not studies.note_instance(first, "1.1")
        assert studies.note_instance(first, "1.1")
        first.note_patient(Patient("Q", "", ""))
    (closing,), _ = studies.begin_closing(None)
    assert closing is first
    assert studies.begin_closing(None) == ([], [first])
    first.late_rows.add(7)
    came = []

    async def come() -> None:
        async with studies.using("1") as study:
            came.append(study)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come)
        await trio.testing.wait_all_tasks_blocked()
        assert came == []
        studies.end_closing(first)
    (anew,) = came
    assert anew is not first
    assert (anew.rows, anew.patient, anew.writer) == ({7}, None, None)
    assert not studies.note_instance(anew, "1.1")
    studies.end_closing(first)  # once more changes nothing
    assert studies.find("1") is anew


@pytest.mark.parametrize("is_taken", [True, False])
async def test_one_instance_is_taken_once_though_two_bring_it(*, is_taken: bool) -> None:
    study = OpenStudies().get("1")
    order, go_on = [], trio.Event()

    async def first() -> None:
        async with study.taking(b"x") as taking:
            assert taking is not None
            order.append("first")
            await go_on.wait()
            taking.is_taken = is_taken

    async def second() -> None:
        async with study.taking(b"x") as taking:
            order.append("known" if taking is None else "second")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert order == ["first", "known" if is_taken else "second"]


async def test_instance_that_was_not_taken_to_the_end_can_come_again() -> None:
    study = OpenStudies().get("1")
    with pytest.raises(ZeroDivisionError):
        async with study.taking(b"x"):
            raise ZeroDivisionError
    async with study.taking(b"x") as taking:
        assert taking is not None


async def test_studies_are_quiet_in_the_order_in_which_they_were_used(
    autojump_clock: trio.testing.MockClock,
) -> None:
    studies, found = OpenStudies(), []

    async def bring(uid: str, at: float, lasting: float) -> None:
        await trio.sleep(at)
        async with studies.using(uid):
            await trio.sleep(lasting)

    async def close() -> None:
        while True:
            quiet = await studies.quiet(10, 2)
            found.append((trio.current_time() - begun, quiet))
            for study in studies.begin_closing(quiet)[0]:
                studies.end_closing(study)

    begun = trio.current_time()
    with trio.move_on_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            nursery.start_soon(bring, "long", 1, 60)
            for n in range(5):
                nursery.start_soon(bring, str(n), 2, 0)
            nursery.start_soon(bring, "0", 8, 0)
    assert found[-1] == (71, ["long"])
    assert [time for time, _ in found] == [12, 12, 18, 71]
    assert sorted(uid for _, uids in found[:2] for uid in uids) == ["1", "2", "3", "4"]
    assert found[2] == (18, ["0"])
