"""A watch tells what moves: no history, no line for every chunk."""

from emix.admin.v1 import admin_pb2 as pb

from node.cli.moves import Moves

MB = 10**6


def transfer(state: str, done: int = 0, reason: str = "", updated: int = 1000) -> pb.Transfer:
    return pb.Transfer(
        number=12,
        direction="send",
        peer_name="Billings Hospital",
        state=state,
        bytes_done=done,
        bytes_total=100 * MB,
        reason=reason,
        updated_seconds=updated,
    )


def test_what_had_ended_before_is_no_news() -> None:
    assert Moves(2000.5).line(transfer("delivered"), 2001.0) == ""
    assert Moves(1000.5).line(transfer("delivered"), 1001.0) != ""


def test_progress_has_rate_and_time_left_and_is_told_now_and_then() -> None:
    moves = Moves(900.0)
    told = [moves.line(transfer("pending", reason="not reached"), 1000.0)]
    told += [moves.line(transfer("carrying", n * MB), 1001.0 + n / 10) for n in range(1, 100)]
    told += [moves.line(transfer("delivered", 100 * MB), 1012.0)]
    lines = [line for line in told if line]
    assert lines[0] == "t12 -> Billings Hospital: pending, 100.0 MB, not reached"
    assert len(lines) == 12
    assert lines[2] == ("t12 -> Billings Hospital: carrying 11 % of 100.0 MB, 10.0 MB/s, 8 s left")
    assert lines[-1] == "t12 -> Billings Hospital: delivered, 100.0 MB"


def test_slow_transfer_is_told_of_every_few_seconds() -> None:
    moves = Moves(900.0)
    lines = [moves.line(transfer("carrying", n), 1000.0 + n) for n in range(1, 21)]
    assert sum(map(bool, lines)) == 4


def test_same_again_is_told_once() -> None:
    moves = Moves(900.0)
    same = transfer("held", reason="a person at the receiver decides")
    assert [bool(moves.line(same, 1000.0 + n)) for n in range(5)] == [True, *[False] * 4]
