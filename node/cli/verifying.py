"""The report of `emix audit verify`."""

from collections.abc import Iterator, Sequence

from emix.admin.v1 import admin_pb2 as pb

from node.terminal.output import show_ago

_LIVE_SECONDS = 60
"""A facility heard within this time counts as asked: connected peers say Hello more often."""

_UNREACHABLE = 20


class VerifyReport:
    """Reports up to which entry others confirm the log, who does, and who contradicts it."""

    def __init__(self, answer: pb.VerifyAuditResponse, *, is_asked: bool, now: float) -> None:
        """Prepare; `is_asked`: only what facilities say now counts."""
        self._answer = answer
        self._is_asked = is_asked
        self._now = now
        self._counted = [w for w in answer.witnesses if not is_asked or self._is_live(w)]

    @property
    def status(self) -> int:
        """The exit status."""
        answer = self._answer
        is_wrong = answer.problem or answer.given_problem or self._contradicting()
        if is_wrong:
            return 1
        return _UNREACHABLE if self._is_asked and not self._counted else 0

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report."""
        answer = self._answer
        yield f"{answer.entries} entries, head {answer.head.hex()}"
        if answer.problem:
            yield f"BROKEN: {answer.problem}"
        else:
            yield f"The chain of {answer.entries} entries is intact."
        for witness in self._contradicting():
            yield f"CONTRADICTED by {witness.display_name}: {witness.problem}."
        if answer.given_sequence:
            yield self._given()
        yield from self._confirmed()

    def _given(self) -> str:
        answer = self._answer
        if answer.given_problem:
            return f"CONTRADICTED by the given head or entry: {answer.given_problem}."
        return f"Entries up to {answer.given_sequence} match the given head."

    def _confirmed(self) -> Iterator[str]:
        answer = self._answer
        for name in answer.silent:
            yield f"{name} did not answer."
        good = [w for w in self._counted if w.sequence and not w.problem]
        if not good:
            if self._is_asked and not self._counted:
                yield "NOT PROVEN: no connected facility keeps heads of this log."
            else:
                yield "Nobody confirms it: anyone with this machine's keys could have written it."
            return
        through, left = good[0].sequence, answer.entries - good[0].sequence
        count = f"{len(good)} facilities" if len(good) > 1 else "1 facility"
        newest = max((w for w in good if w.sequence == through), key=lambda w: w.taken_seconds)
        yield (
            f"Entries up to {through} are confirmed: {count} {_keep(good)} heads of this log"
            f" (the newest: {newest.display_name}, taken {show_ago(newest.taken_seconds)})."
        )
        if left > 0:
            yield f"No facility has confirmed the last {left} yet."
        if not self._is_asked:
            yield (
                "These heads were read from this machine, whose keys suffice to change them."
                " To ask the facilities themselves: emix audit verify --witnesses"
            )

    def _contradicting(self) -> list[pb.AuditWitness]:
        return [w for w in self._answer.witnesses if w.problem]

    def _is_live(self, witness: pb.AuditWitness) -> bool:
        return witness.heard and self._now - witness.reported_seconds < _LIVE_SECONDS


def _keep(good: Sequence[object]) -> str:
    return "keep" if len(good) > 1 else "keeps"
