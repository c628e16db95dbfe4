"""Lines about transfers: changes of state, and progress."""

from dataclasses import dataclass

from emix.admin.v1 import admin_pb2 as pb

from node.terminal.output import show_bytes, show_rate, show_seconds, show_time

FINAL = ("delivered", "declined", "cancelled", "failed")
_STEP_PERCENT, _STEP_SECONDS = 10, 5.0


@dataclass
class _Last:
    """The last line about a transfer, and its bytes and time then."""

    state: str
    reason: str
    percent: int
    shown_time: float
    done: int
    time: float


class Moves:
    """Decides which changes of transfers are worth a line, and writes it."""

    def __init__(self, started: float) -> None:
        """Begin; transfers that ended before that time get no line."""
        self._started = started
        self._last: dict[int, _Last] = {}

    def line(self, t: pb.Transfer, now: float, *, is_terse: bool = False) -> str:
        """Return the line to print about a transfer that changed; empty for none.

        If `is_terse`, only changes of state or reason get a line: a progress bar shows the rest.
        """
        last = self._last.get(t.number)
        percent = 100 * t.bytes_done // (t.bytes_total or 1)
        changed = max(t.updated_seconds, t.deleted_seconds)
        if last is None and t.state in FINAL and changed < int(self._started):
            return ""
        reason = why(t)
        rate = 0
        if last is not None and now > last.time:
            rate = int(max(0, t.bytes_done - last.done) / (now - last.time))
        is_change = last is None or (last.state, last.reason) != (t.state, reason)
        is_step = (
            not is_terse
            and last is not None
            and (
                percent >= last.percent + _STEP_PERCENT
                or (t.bytes_done > last.done and now >= last.shown_time + _STEP_SECONDS)
            )
        )
        if last is not None and not is_change and not is_step:
            return ""
        self._last[t.number] = _Last(t.state, reason, percent, now, t.bytes_done, now)
        return _line(t, percent, rate)


def _line(t: pb.Transfer, percent: int, rate: int) -> str:
    arrow = "->" if t.direction == "send" else "<-"
    parts = [t.state]
    if t.state not in FINAL and t.bytes_done:
        parts[0] += f" {percent} % of {show_bytes(t.bytes_total)}"
    else:
        parts.append(show_bytes(t.bytes_total))
    if rate and t.state not in FINAL:
        left = (t.bytes_total - t.bytes_done) // rate
        parts += [show_rate(rate), f"{show_seconds(left)} left"]
    if t.priority in ("stat", "urgent"):
        parts.append(t.priority)
    if reason := why(t):
        parts.append(reason)
    return f"t{t.number} {arrow} {t.peer_name or t.peer[:7]}: {', '.join(parts)}"


def why(t: pb.Transfer) -> str:
    """Return the reason for a transfer's state, or when the receiver deleted the package."""
    if t.deleted_seconds:
        return f"deleted there since, on {show_time(t.deleted_seconds)}"
    return t.reason


def name_of(transfer: pb.Transfer) -> str:
    """Return how a transfer is called: its number first, since its id is the sender's choice."""
    return f"t{transfer.number} ({transfer.transfer_id[:8]})"
