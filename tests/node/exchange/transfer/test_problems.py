"""Which problems end a transfer, whose they are, and what the other side is told of them."""

import pytest
import trio
from trio.testing import MockClock

from node.documents.messages import Answer, AnswerKind, Message, Problem, Want
from node.domain.ids import FacilityId
from node.errors import (
    BadReceipt,
    ChunkDamaged,
    ChunkNotFound,
    NodeError,
    NotFound,
    PeerRefused,
    PeerTimeout,
    PeerUnreachable,
    ProtocolError,
    RemoteProtocolError,
    StoreError,
    StoreFull,
)
from node.exchange.transfer.problems import (
    expect,
    held_as,
    is_final_error,
    is_ours,
    problem_error,
    send_error,
    send_problem,
)
from tests.node.exchange.arriving_parts import MemoryLink, link_pair

A, B = FacilityId(b"a" * 32), FacilityId(b"b" * 32)
ANSWER = Answer(AnswerKind.HELD)


async def test_message_of_the_kind_that_must_come_is_returned() -> None:
    theirs, ours = link_pair(A, B)
    await theirs.send(ANSWER)
    assert await expect(ours, Answer) is ANSWER
    await theirs.end()
    with pytest.raises(PeerUnreachable, match="ended the stream"):
        await expect(ours, Answer)


def test_what_may_not_come_breaks_the_protocol_and_a_problem_is_raised_as_what_it_is() -> None:
    with pytest.raises(RemoteProtocolError, match="unexpected Want message"):
        held_as(Want(()), Answer)
    with pytest.raises(StoreFull):
        held_as(Problem("store-full", "x", is_final=False), Answer)
    problem = Problem("store-full", "x", is_final=False)
    assert held_as(problem, Problem) is problem


@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("chunk-damaged", ChunkDamaged),
        ("protocol-remote", ProtocolError),
        ("store", StoreError),
        ("of a later version", NodeError),
    ],
)
def test_reported_problem_is_as_final_as_the_other_side_says(
    code: str, kind: type[NodeError], *, is_final: bool
) -> None:
    error = problem_error(Problem(code, "it broke", is_final=is_final))
    assert type(error) is kind
    assert str(error) == "the other side reports: it broke"
    assert is_final_error(error) is is_final
    assert not is_ours(error)


def test_refusal_for_good_is_one_and_other_refusals_are_tried_again() -> None:
    final = problem_error(Problem("peer-refused", "not wanted", is_final=True))
    assert isinstance(final, PeerRefused)
    assert str(final) == "not wanted"
    assert is_final_error(final)
    later = problem_error(Problem("peer-refused", "not now", is_final=False))
    assert not is_final_error(later)


@pytest.mark.parametrize(
    ("error", "is_final", "is_own"),
    [
        (ChunkDamaged("x"), True, False),
        (ChunkNotFound("x"), True, False),
        (NotFound("x"), True, False),
        (BadReceipt("x"), True, False),
        (RemoteProtocolError("x"), True, False),
        (PeerRefused("x"), True, False),
        (StoreError("x"), False, True),
        (StoreFull("x"), False, True),
        (PeerUnreachable("x"), False, False),
        (PeerTimeout("x"), False, False),
    ],
)
def test_error_of_this_node_is_final_where_no_second_try_can_mend_it(
    error: NodeError, *, is_final: bool, is_own: bool
) -> None:
    assert is_final_error(error) is is_final
    assert is_ours(error) is is_own


async def test_other_side_is_told_nothing_of_this_machine() -> None:
    theirs, ours = link_pair(A, B)
    await send_error(ours, StoreError("/var/lib/emix belongs to root"), is_final=False)
    said = await theirs.receive()
    assert isinstance(said, Problem)
    assert (said.code, said.is_final) == ("store", False)
    assert "root" not in said.message
    await send_error(ours, BadReceipt("the receipt is malformed"), is_final=True)
    assert await theirs.receive() == Problem("bad-receipt", "the receipt is malformed", True)


class SilentLink(MemoryLink):
    """Takes no message, or fails at once."""

    problem: NodeError | None = None

    async def send(self, message: Message) -> None:
        if self.problem:
            raise self.problem
        await trio.sleep_forever()


async def test_whoever_does_not_listen_is_not_waited_for(autojump_clock: MockClock) -> None:
    problem = Problem("store", "x", is_final=False)
    link = SilentLink(A, *trio.open_memory_channel[Message](1))
    await send_problem(link, problem)
    assert trio.current_time() <= 5.1
    link.problem = PeerUnreachable("it has gone")
    await send_problem(link, problem)


async def test_other_side_is_told_by_who_is_being_cancelled() -> None:
    theirs, ours = link_pair(A, B)
    problem = Problem("peer-refused", "cancelled", is_final=True)
    with trio.CancelScope() as scope:
        scope.cancel()
        await send_problem(ours, problem)
    assert await theirs.receive() == problem
