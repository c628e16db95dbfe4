"""The import command, and the output of an import."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import node_client, run_call
from node.cli.streaming import Said, stream_files
from node.domain.display_text import encodable
from node.errors import UsageError
from node.system import safe_paths
from node.terminal.commands import as_json
from node.terminal.output import (
    ProgressBar,
    Styled,
    as_dict,
    print_error,
    print_line,
    show_bytes,
    show_json,
)


@click.command("import")
@click.argument("paths", nargs=-1, required=True)
@click.option("--stream", is_flag=True, help="Stream files even if the node can read the paths.")
@click.option("--verify", is_flag=True, help="Open all that was imported, and check it.")
@as_json
@click.pass_context
def import_(
    context: click.Context, paths: tuple[str, ...], stream: bool, verify: bool, json_: bool
) -> None:
    """Import files, folders, discs, disc images and archives (ZIP, tar, gzip).

    Every DICOM file gets one of four verdicts: carried, carried and flagged (odd), held (a person
    must decide: `emix held`), or refused. All but the first are listed with their reasons. Other
    files, such as a disc's viewer and pictures, are counted, and listed with --json. Exit status 1
    if a file was held or refused, if a DICOMDIR names a missing file, or if there was no DICOM
    file. Importing the same files again changes nothing.

    A folder or disc is imported whole. If you name a DICOMDIR itself, only the files that it
    references are imported.

    What was imported is on the disk when the command ends. --verify also decrypts and expands it
    again, and compares it with the digests of the files: do that before you delete them. The node
    does so by itself within hours.

    \b
    Examples:
      emix import /media/cdrom
      emix import study.zip /srv/incoming/2026-11-24
      emix import --verify /media/cdrom      # before the disc is given away
    """
    if not all(paths):
        raise UsageError("an empty path")
    done = import_and_show(context, [Path(path) for path in paths], stream=stream, json_=json_)
    if verify:
        done["verified"] = _verify(context, done["summary"]["study_instance_uids"], json_=json_)
    if json_:
        show_json(done)
    if not is_whole(done) or (verify and done["verified"]["problems"]):
        raise SystemExit(1)


def _verify(context: click.Context, studies: Sequence[str], *, json_: bool) -> dict[str, Any]:
    """Have all that was imported of studies opened; show and return what was found."""
    chunks, problems = 0, list[str]()
    request = pb.CheckStoreRequest(read_data=True, study_instance_uids=studies)
    if studies:
        with (
            node_client(context) as client,
            ProgressBar("verifying") as bar,
            client.stream("NodeService.CheckStore", request) as events,
        ):
            for event in events:
                if event.HasField("chunks_unopened"):
                    continue
                chunks = event.chunks_done
                bar.update(event.chunks_done, event.chunks_total)
                if event.problem:
                    problems.append(event.problem)
    if not json_:
        for problem in problems:
            print_line(f"PROBLEM  {problem}: keep the files, and import them again")
        print_line(f"Verified: {chunks} chunks opened and checked, {len(problems)} problems.")
    return {"chunks": chunks, "problems": problems}


def is_whole(done: dict[str, Any]) -> bool:
    """Return whether an import found something, and carried or knew all of it."""
    summary = done["summary"]
    found = summary["carried"] + summary["known"] + summary["held"]
    return found > 0 and not (summary["held"] or summary["refused"] or summary["missing"])


def import_and_show(
    context: click.Context,
    paths: Sequence[Path],
    *,
    stream: bool = False,
    resumes: int = 0,
    json_: bool,
) -> dict[str, Any]:
    """Import paths, show findings and summary unless `json_`, and return them.

    Raises:
        UsageError: a path cannot be examined; nothing was imported.
        SystemExit: the import was cancelled.
    """
    absolute = [safe_paths.absolute(path) for path in paths]
    for path in absolute:
        try:
            path.lstat()
        except (OSError, ValueError) as exc:  # a name with a NUL in it is none
            why = exc.strerror if isinstance(exc, OSError) else "not a valid file name"
            raise UsageError(f"{path} cannot be accessed ({why})") from exc
    # What has no UTF-8 name cannot be named to the node, and can be read here.
    is_streamed = stream or any(encodable(str(path)) != str(path) for path in absolute)
    done = _import(context, absolute, is_streamed=is_streamed, resumes=resumes, json_=json_)
    if done.summary is None:
        print_error(f"the import was cancelled; {_kept(context, absolute, resumes)}")
        raise SystemExit(130)
    if not json_:
        _show_summary(done.summary, done.studies)
    found = done.summary.carried + done.summary.known + done.summary.held
    if not found and not done.summary.refused:
        print_error(f"no DICOM file was found in {_listed(absolute)}", code="not-found")
    return {
        "summary": {**as_dict(done.summary), "study_instance_uids": done.studies},
        "findings": [as_dict(finding) for finding in done.findings],
    }


def _kept(context: click.Context, paths: Sequence[Path], resumes: int) -> str:
    """Return the note about what remains of an earlier import that a cancelled one had resumed."""
    sources = {encodable(str(path)) for path in paths}
    answer = run_call(context, "StudyService.ListImports", pb.ListImportsRequest())
    for one in answer.imports:
        if one.number == resumes or (not one.is_running and set(one.sources) == sources):
            name = f"i{one.number}"
            return (
                f"{name} keeps the instances stored before: `emix imports resume {name}` continues"
                f" it, `emix imports discard {name}` deletes them"
            )
    return "nothing of it was stored"


@dataclass
class _Imported:
    """What the node reported about an import; no summary if it was cancelled."""

    summary: pb.ImportSummary | None = None
    findings: list[pb.ImportFinding] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    missing: int = 0


def _import(
    context: click.Context, paths: list[Path], *, is_streamed: bool, resumes: int, json_: bool
) -> _Imported:
    """Run an import; on Ctrl-C the node is asked to discard what this import has added."""
    done = _Imported()

    def note(finding: pb.ImportFinding) -> None:
        done.findings.append(finding)
        done.missing += finding.verdict == "missing"
        is_shown = finding.verdict != "missing" or done.missing <= _NAMED_MISSING
        if is_shown and not json_:
            _show_finding(finding)

    said: Said = SimpleQueue()
    plain = stream_files(paths, said) if is_streamed else _name_paths(paths, said)
    requests = _beginning(plain, paths, resumes)
    is_unreadable = False
    with (
        node_client(context) as client,
        ProgressBar("importing") as bar,
        client.stream("StudyService.Import", requests) as events,
        _at_interrupt(lambda: said.put(pb.ImportRequest(cancel=pb.ImportCancel()))),
    ):
        for event in events:
            match event.WhichOneof("event"):
                case "progress":
                    bar.update(event.progress.bytes_done, event.progress.bytes_total)
                case "finding":
                    note(event.finding)
                case "studies":
                    done.studies += event.studies.study_instance_uids
                case "summary":
                    done.summary = event.summary
                case "unreadable":
                    is_unreadable = True
        said.put(None)
    if is_unreadable and not is_streamed:
        return _import(context, paths, is_streamed=True, resumes=resumes, json_=json_)
    return done


@contextmanager
def _at_interrupt(work: Callable[[], None]) -> Iterator[None]:
    """Do something at the first Ctrl-C in the block, and go on; the second ends it."""
    before = signal.getsignal(signal.SIGINT)

    def once(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        work()

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_NAMED_MISSING = 20
_WORDS = {"flag": "flagged", "hold": "held", "refuse": "refused", "missing": "missing"}


def _show_finding(finding: pb.ImportFinding) -> None:
    if finding.verdict not in _WORDS:
        return  # what is no DICOM is counted
    colour = {"hold": "yellow", "refuse": "red", "missing": "red"}.get(finding.verdict)
    word = _WORDS[finding.verdict]
    print_line(Styled(f"{word:>8}", colour), f"  {finding.label}: {'; '.join(finding.reasons)}")


def _listed(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if paths[3:] else "")


def _show_summary(summary: pb.ImportSummary, studies: Sequence[str]) -> None:
    print_line(
        f"{summary.carried} instances imported ({show_bytes(summary.plaintext_bytes)},"
        f" sealed {show_bytes(summary.sealed_bytes)}), {summary.flagged} of them flagged;"
        f" {summary.known} known already, {summary.held} held, {summary.refused} refused."
    )
    if summary.missing:
        all_named = "" if summary.missing <= _NAMED_MISSING else "; --json lists them"
        print_line(f"{summary.missing} files that a DICOMDIR references are missing{all_named}.")
    if summary.not_dicom:
        print_line(f"{summary.not_dicom} other files are not DICOM; --json lists them.")
    for uid in studies[:20]:
        print_line(f"  study {uid}")
    if len(studies) > 20:
        print_line(f"  and {len(studies) - 20} more; see `emix studies`")


def _name_paths(paths: list[Path], said: Said) -> Iterator[pb.ImportRequest]:
    yield pb.ImportRequest(paths=pb.ImportPaths(paths=[str(path) for path in paths]))
    yield from iter(said.get, None)


def _beginning(
    requests: Iterator[pb.ImportRequest], paths: Sequence[Path], number: int
) -> Iterator[pb.ImportRequest]:
    """Yield the requests of an import; the first has its sources and the import to resume."""
    first = next(requests, None)
    if first is not None:
        if first.HasField("file"):
            first.file.sources.extend(encodable(str(path)) for path in paths)
        part = first.file if first.HasField("file") else first.paths
        part.resumes = number
        yield first
    yield from requests


COMMANDS = (import_,)
