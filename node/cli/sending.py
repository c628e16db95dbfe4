"""Sends several studies with one command; an error with one does not stop the others."""

import itertools
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.choosing import chosen, incomplete, is_path, is_plain, of_patient
from node.cli.client import node_client, run_call
from node.cli.import_commands import import_and_show, is_whole
from node.cli.moves import FINAL, Moves, name_of
from node.cli.origins import asking_for_origin
from node.errors import (
    NodeError,
    NotMeant,
    PeerTimeout,
    SeveralOrigins,
    SeveralPatients,
    by_code,
)
from node.terminal.output import (
    ProgressBar,
    as_dict,
    ask,
    print_error,
    print_line,
    show_bytes,
    show_json,
    show_time,
)

_MOST_TOGETHER = 1000


class Sending:
    """The studies that one command sends, and their results."""

    def __init__(self, context: click.Context, order: pb.SendRequest, *, json_: bool) -> None:
        """Begin; the order has everything but the study."""
        self._context = context
        self._order = order
        self._is_json = json_
        self._answer = pb.SendResponse()
        self._transfers: dict[int, pb.Transfer] = {}
        self._imports: list[dict[str, Any]] = []
        self._errors: list[tuple[str, NodeError]] = []

    def send(self, texts: Sequence[str], *, is_sure: bool) -> None:
        """Send the named studies; an error is reported, and the others are still sent.

        Unless `is_sure`, a person is asked to confirm a study found by words, and one with several
        patients. A path is imported first.
        """
        rest = list(texts)
        while rest:
            place = f"{len(texts) - len(rest) + 1} of {len(texts)}: " if len(texts) > 1 else ""
            together = list(itertools.takewhile(is_plain, rest[:_MOST_TOGETHER]))
            if len(together) > 1:
                self._send_together(together, len(texts) - len(rest), len(texts), is_sure=is_sure)
                del rest[: len(together)]
                continue
            text = rest.pop(0)
            if is_path(text):
                self._import_and_send(text, place, is_sure=is_sure)
                continue
            with self._noting(text, place):
                self._send(chosen(self._context, text, is_sure=is_sure), is_sure=is_sure)

    def _send_together(
        self, texts: Sequence[str], before: int, total: int, *, is_sure: bool
    ) -> None:
        """Send studies that nobody needs to be asked about with one call.

        Of those about which a person has to be asked after all, it is asked then.
        """
        order = pb.SendRequest(several_patients=is_sure)
        order.MergeFrom(self._order)
        request = pb.SendStudiesRequest(studies=texts, order=order)
        errors: dict[int, NodeError] = {}
        with (
            node_client(self._context) as client,
            client.stream("TransferService.SendStudies", request) as responses,
        ):
            for response in responses:
                if response.error_code:
                    errors[response.index] = by_code(response.error_code)(response.error)
                    continue
                self._answer.MergeFrom(response.sent)
                self._transfers |= {t.number: t for t in response.sent.transfers}
        for index, error in sorted(errors.items()):
            text, place = texts[index], f"{before + index + 1} of {total}: "
            with self._noting(text, place):
                if not isinstance(error, SeveralPatients | SeveralOrigins):
                    raise error
                self._send(text, is_sure=is_sure)

    @contextmanager
    def _noting(self, text: str, place: str) -> Generator[None]:
        """Report an error in the block, and note it.

        The message names the argument by its position, not by its text, which may name a patient.
        """
        try:
            yield
        except NodeError as exc:
            self._errors.append((text, exc))
            facts = {"study": text, **exc.facts}
            said = str(exc) if self._is_json else f"{place}{exc}"
            print_error(said, code=exc.code.value, status=exc.exit_code, **facts)

    def _send(self, study: str, *, is_sure: bool) -> None:
        """Send one study.

        Raises:
            NodeError: it was not sent.
        """
        request = pb.SendRequest(study=study)
        request.MergeFrom(self._order)
        with asking_for_origin(self._context, study, "send", study, self._order.facility):
            answer = self._call(request, is_sure=is_sure)
        self._answer.MergeFrom(answer)
        self._transfers |= {t.number: t for t in answer.transfers}

    def _call(self, request: pb.SendRequest, *, is_sure: bool) -> pb.SendResponse:
        request.several_patients = is_sure
        try:
            answer: pb.SendResponse = run_call(self._context, "TransferService.Send", request)
        except SeveralPatients:
            self._ask_about_patients(request.study)
            request.several_patients = True
            answer = run_call(self._context, "TransferService.Send", request)
        return answer

    def _ask_about_patients(self, study: str) -> None:
        """Show the patients of a study, and ask a person to confirm all of them.

        Raises:
            SeveralPatients: the person declined.
            UsageError: there is no terminal to ask at.
        """
        request = pb.GetStudyRequest(study=study)
        for source in run_call(self._context, "StudyService.GetStudy", request).sources:
            for patient in source.patients if source.patients_total > 1 else ():
                print_line(f"  {of_patient(patient)}", is_error=True)
        try:
            ask("The study has several patients. Send all of them?", is_sure=False)
        except NotMeant as exc:
            raise SeveralPatients("the study has several patients; it was not sent") from exc

    def _import_and_send(self, path: str, place: str, *, is_sure: bool) -> None:
        """Import a path, and send every study of it.

        First checks that the facility can be sent to: otherwise nothing is imported.
        """
        studies: list[str] = []
        with self._noting(path, place):
            nothing = pb.SendRequest(facility=self._order.facility)
            run_call(self._context, "TransferService.Send", nothing)
            summary = import_and_show(self._context, [Path(path)], json_=self._is_json)
            self._imports.append(summary)
            studies = summary["summary"]["study_instance_uids"]
        for study in studies:
            with self._noting(study, place):
                self._send(study, is_sure=is_sure)

    def wait(self, seconds: int | None) -> None:
        """Wait until all transfers are final, showing progress; at most `seconds`."""
        if not self._open():
            return
        try:
            is_in_time = self._follow(seconds)
        except KeyboardInterrupt:
            print_error("no longer waiting; sending continues: see `emix transfers`")
            raise SystemExit(130) from None
        if not is_in_time:
            left = ", ".join(name_of(t) for t in self._open())
            print_line(
                f"Not delivered within {seconds} s: {left}. Sending continues; `emix transfers`"
                " shows the progress, `emix cancel` cancels it.",
                is_error=True,
            )

    def _open(self) -> list[pb.Transfer]:
        return [t for t in self._transfers.values() if t.state not in FINAL]

    def _follow(self, seconds: int | None) -> bool:
        """Watch until all these transfers are final; return False if the time was over first.

        Raises:
            PeerTimeout: the node did not answer at all.
        """
        request = pb.WatchTransfersRequest(numbers=self._transfers)
        moves = Moves(time.time())
        with (
            node_client(self._context) as client,
            ProgressBar("sending") as bar,
            client.stream("TransferService.WatchTransfers", request, timeout=seconds) as events,
        ):
            try:
                for event in events:
                    t = event.transfer
                    self._transfers[t.number] = t
                    if line := moves.line(t, time.time(), is_terse=bar.is_shown):
                        bar.say(line)
                    bar.update(
                        sum(t.bytes_done for t in self._transfers.values()),
                        sum(t.bytes_total for t in self._transfers.values()),
                    )
                    if not self._open():
                        return True
            except PeerTimeout:
                if seconds is None:
                    raise
                return False
        return True

    def show_end(self) -> None:
        """Show the transfers, and what was not sent."""
        answer = self._answer
        if self._is_json:
            del answer.transfers[:]
            answer.transfers.extend(self._transfers.values())
            errors = [
                {"study": study, "code": error.code.value, "message": str(error)}
                for study, error in self._errors
            ]
            show_json({**as_dict(answer), "imports": self._imports, "errors": errors})
            return
        if answer.known:
            print_line(
                f"{len(answer.known)} of {len(self._transfers)} packages were sent there before:"
                " nothing new is sent for them (--again sends what was delivered)."
            )
            if any(t.state == "delivered" for t in self._transfers.values()):
                print_line(
                    "A transfer shown as delivered may have been deleted there since: not every"
                    " receiver reports deletions."
                )
        for t in self._transfers.values():
            reason = f" ({t.reason})" if t.reason else ""
            print_line(
                f"transfer {name_of(t)} to {t.peer_name}: {t.state}{_when(t)}{reason},"
                f" {t.instances} instances, {show_bytes(t.plaintext_bytes)}"
            )
        for package in answer.held_packages:
            print_line(
                f"package {package[:8]} is not sent: an instance of it is held here (`emix held`);"
                " release it, or send it held with --include-held"
            )

        for found in answer.held:
            print_line(
                f"{found.sop_instance_uid} is held here and was not sent"
                f" ({'; '.join(found.reasons)}); to release it: `emix held release {found.held_id}`"
            )

        for number in answer.unfinished_imports:
            print_line(incomplete(number))

    def status(self, *, is_waited: bool) -> int:
        """Return the command's exit status."""
        if self._errors:
            return self._errors[0][1].exit_code
        is_late = is_waited and any(t.state != "delivered" for t in self._transfers.values())
        is_left_out = not all(map(is_whole, self._imports))
        is_held = bool(
            self._answer.held_packages or self._answer.held or self._answer.unfinished_imports
        )
        is_nothing = not self._transfers and not is_held
        return int(is_late or is_left_out or is_nothing or is_held)


def _when(transfer: pb.Transfer) -> str:
    """Return when a transfer was delivered; empty for one that was not."""
    is_delivered = transfer.state == "delivered"
    return f" {show_time(transfer.updated_seconds)}" if is_delivered else ""
