"""Commands about studies: import, held, studies, study, export, delete."""

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.choosing import chosen, incomplete, of_patient, summary_of
from node.cli.client import node_client, run_call
from node.cli.node_commands import as_json
from node.cli.origins import asking_for_origin, origin_option
from node.cli.streaming import Said, stream_files
from node.domain.display_text import encodable
from node.errors import NodeError, UsageError
from node.system import safe_paths
from node.terminal.output import (
    Column,
    ProgressBar,
    Styled,
    as_dict,
    ask,
    limit_of,
    limited,
    note_limit,
    print_error,
    print_line,
    show_bytes,
    show_day,
    show_done,
    show_facts,
    show_json,
    show_table,
    show_time,
    yes_option,
)


@click.command("import")
@click.argument("paths", nargs=-1, required=True)
@click.option("--stream", is_flag=True, help="Send the bytes, even if the node can read the paths.")
@as_json
@click.pass_context
def import_(context: click.Context, paths: tuple[str, ...], stream: bool, json_: bool) -> None:
    """Import files, folders, discs, disc images and archives (ZIP, tar, gzip).

    Every DICOM file gets one of four answers: carried, carried and flagged (odd), held (a person
    must decide: `emix held`), or refused. All but the first are listed with their reasons. What is
    no DICOM, a disc's viewer and pictures, is counted, and with --json listed. Exit status 1 if a
    file was held or refused, if a DICOMDIR names one that is not there, or if there was no DICOM
    at all. Importing again changes nothing.

    A folder or disc is imported whole. A DICOMDIR that is named itself is imported with the files
    that it names, and with nothing else that lies beside it.

    \b
    Examples:
      emix import /media/cdrom
      emix import study.zip /srv/incoming/2026-11-24
    """
    if not all(paths):
        raise UsageError("an empty path")
    done = import_and_show(context, [Path(path) for path in paths], stream=stream, json_=json_)
    if json_:
        show_json(done)
    if not is_whole(done):
        raise SystemExit(1)


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
    """Import paths, show what there is to say unless as JSON, and return it.

    Raises:
        UsageError: nothing can be there; nothing was imported.
        SystemExit: it was cancelled.
    """
    absolute = [safe_paths.absolute(path) for path in paths]
    for path in absolute:
        try:
            path.lstat()
        except (OSError, ValueError) as exc:  # a name with a NUL in it is none
            why = exc.strerror if isinstance(exc, OSError) else "no name for a file"
            raise UsageError(f"{path} cannot be looked at ({why})") from exc
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
    """Return what is said of what a cancelled import has left, which went on with another."""
    sources = {encodable(str(path)) for path in paths}
    answer = run_call(context, "StudyService.ListImports", pb.ListImportsRequest())
    for one in answer.imports:
        if one.number == resumes or (not one.is_running and set(one.sources) == sources):
            name = f"i{one.number}"
            return (
                f"{name} keeps what it had before: `emix imports resume {name}` goes on with it,"
                f" `emix imports discard {name}` deletes it"
            )
    return "nothing of it was kept"


@dataclass
class _Imported:
    """What an import told; no summary if it was cancelled."""

    summary: pb.ImportSummary | None = None
    findings: list[pb.ImportFinding] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    missing: int = 0


def _import(
    context: click.Context, paths: list[Path], *, is_streamed: bool, resumes: int, json_: bool
) -> _Imported:
    """Run an import; at Ctrl-C the node is told to leave behind nothing that it brought."""
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
_NAMED_FILES = 10


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
        print_line(f"{summary.missing} files that a DICOMDIR names are not there{all_named}.")
    if summary.not_dicom:
        print_line(f"{summary.not_dicom} other files are no DICOM; --json lists them.")
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
    """Yield the requests of an import; the first says what it is of, and what it goes on with."""
    first = next(requests, None)
    if first is not None:
        if first.HasField("file"):
            first.file.sources.extend(encodable(str(path)) for path in paths)
        part = first.file if first.HasField("file") else first.paths
        part.resumes = number
        yield first
    yield from requests


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def held(context: click.Context, json_: bool) -> None:
    """List instances that a person must decide about.

    \b
    Examples:
      emix held
      emix held release 3 4
    """
    if context.invoked_subcommand is not None:
        return
    answer = run_call(context, "StudyService.ListHeld", pb.ListHeldRequest())
    if json_:
        show_json(answer)
        return
    show_table(
        (
            ">NUMBER",
            "SINCE",
            ">SIZE",
            Column("FILE OR SENDER", least=16, is_middle=True),
            Column("WHY", is_note=True),
        ),
        [
            (
                h.held_id,
                show_time(h.held_seconds),
                show_bytes(h.size_bytes),
                f"from {h.received_from}" if h.received_from else h.label,
                "; ".join(h.reasons),
            )
            for h in answer.held
        ],
        "Nothing is held.",
    )


@held.command()
@click.argument("numbers", nargs=-1, type=click.IntRange(1, 2**63 - 1), required=True)
@as_json
@click.pass_context
def release(context: click.Context, numbers: tuple[int, ...], json_: bool) -> None:
    """Release held instances, so that they are exported and sent.

    An imported one gets a package of its own; a received one goes with the package that it came in.

    \b
    Example:
      emix held release 3 4
    """
    decided, errors = _decide_held(context, numbers, release=True, json_=json_)
    if json_:
        released = [{"held_id": n, "package_id": package} for n, package in decided.items()]
        show_json({"released": released, "errors": errors})
    if errors:
        raise SystemExit(errors[0]["exit_status"])


def _decide_held(
    context: click.Context, numbers: Iterable[int], *, release: bool, json_: bool
) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """Release or discard held instances, each whatever becomes of the others.

    Returns:
        The package in which each now is that was decided about; and the errors, which are told.
    """
    decided, errors = dict[int, str](), list[dict[str, Any]]()
    for number in dict.fromkeys(numbers):
        request = pb.DecideHeldRequest(held_id=number, release=release)
        try:
            answer = run_call(context, "StudyService.DecideHeld", request)
        except NodeError as exc:
            facts = {"held_id": number, "code": exc.code.value, "message": str(exc)}
            errors.append({**facts, "exit_status": exc.exit_code})
            print_error(str(exc), code=exc.code.value, status=exc.exit_code, held_id=number)
            continue
        decided[number] = answer.package_id
        if not json_:
            end = f"released as package {answer.package_id[:8]}" if release else "discarded"
            print_line(f"{number}: {end}")
    return decided, errors


@held.command()
@click.argument("numbers", nargs=-1, type=click.IntRange(1, 2**63 - 1), required=True)
@as_json
@click.pass_context
def discard(context: click.Context, numbers: tuple[int, ...], json_: bool) -> None:
    """Delete held instances that were imported. What arrived stays in its package, held.

    \b
    Example:
      emix held discard 3
    """
    decided, errors = _decide_held(context, numbers, release=False, json_=json_)
    if json_:
        show_json({"discarded": list(decided), "errors": errors})
    if errors:
        raise SystemExit(errors[0]["exit_status"])


@click.command()
@click.argument("query", nargs=-1)
@limited
@as_json
@click.pass_context
def studies(context: click.Context, query: tuple[str, ...], limit: int | None, json_: bool) -> None:
    """List studies, newest first; every word of QUERY must occur in them.

    Patient names and IDs, birth dates, accession numbers, descriptions, referring physicians,
    institutions, dates and modalities are searched, without regard to case and accents.

    \b
    Examples:
      emix studies
      emix studies muller 2026-11-24 CT      # finds Müller, too
    """
    request = pb.ListStudiesRequest(query=" ".join(query), limit=limit_of(limit, json_))
    answer = run_call(context, "StudyService.ListStudies", request)
    if json_:
        show_json(answer)
    else:
        _show_studies(answer.studies, "No study matches." if query else "No study is here yet.")
        note_limit(request.limit, answer.studies)


def _show_studies(found: Sequence[pb.Study], empty: str) -> None:
    show_table(
        (
            ">NO",
            Column("PATIENT", least=10),
            Column("ID", least=6),
            Column("BORN", spare=3),
            "DATE",
            Column("MOD", least=3),
            Column("DESCRIPTION", least=8, spare=6),
            Column("ACCESSION", least=8, spare=7),
            Column(">SER", spare=9),
            ">INST",
            Column(">SIZE", spare=8),
            Column("ORIGIN", least=6),
            Column("STUDY UID", least=12, is_middle=True),
        ),
        [row for s in found for row in _study_rows(s)],
        empty,
    )


def _study_rows(s: pb.Study) -> Iterator[tuple[object, ...]]:
    """Yield a study's row, and one for each other patient under its Study Instance UID."""
    yield (
        f"s{s.number}",
        s.patient_name,
        s.patient_id,
        show_day(s.birth_date),
        show_day(s.study_date),
        "/".join(s.modalities),
        s.study_description,
        s.accession_number,
        s.series,
        f"{s.instances} incomplete" if s.unfinished_imports else s.instances,
        show_bytes(s.plaintext_bytes),
        _origin(s),
        s.study_instance_uid,
    )
    for other in s.patients[1:]:
        who = (f"s{s.number}", other.name, other.patient_id, show_day(other.birth_date))
        yield (*who, "", "", "another patient", "", "", "", "", "", "")


def _origin(study: pb.Study) -> str:
    return study.origin_name or f"{study.origin[:7]} (not paired)"


@click.command()
@click.argument("study", metavar="STUDY")
@as_json
@click.pass_context
def study(context: click.Context, study: str, json_: bool) -> None:
    """Show one study: patient, series, packages, origin, versions, where it was sent.

    STUDY is its number in a list, its UID or the beginning of it, its accession number, or words
    that find no other study. So it is wherever a study is asked for.

    \b
    Examples:
      emix study s12
      emix study 1.2.840.113619.2
      emix study "muller 1950-01-02"
    """
    answer = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=study))
    if json_:
        show_json(answer)
        return
    for source in answer.sources:
        show_facts(_facts(source), 12)
        _show_series(source)
        _show_packages(source)
        print_line()
    if len(answer.sources) > 1:
        print_line(f"{len(answer.sources)} facilities have sealed this study; they stay apart.")


def _facts(source: pb.Study) -> Iterator[tuple[str, str]]:
    """Yield what is known of a study, by name; what is empty is unknown."""
    yield "number", f"s{source.number}"
    yield "study", source.study_instance_uid
    yield "origin", f"{_origin(source)}  {source.origin}"
    for patient in source.patients:
        yield "patient", of_patient(patient)
    for number in source.unfinished_imports:
        yield "attention", incomplete(number)
    if source.patients_total > 1:
        yield "attention", f"{source.patients_total} patients under one Study Instance UID"
    yield "examination", f"{show_day(source.study_date)} {source.study_description}".strip()
    yield "accession", source.accession_number
    yield "referred by", source.referring_physician
    yield "institution", source.institution
    yield (
        "content",
        f"{source.series} series, {source.instances} instances,"
        f" {show_bytes(source.plaintext_bytes)} (sealed {show_bytes(source.sealed_bytes)})",
    )
    if source.versioned_instances:
        yield "versions", f"{source.versioned_instances} more than instances"
    yield "sent to", "; ".join(_sent_to(source)) or "nobody"


def _sent_to(source: pb.Study) -> Iterator[str]:
    everything = sum(package.instances for package in source.packages)
    for who, when, deleted, instances in zip(
        source.sent_to,
        source.delivered_seconds,
        source.deleted_seconds,
        source.delivered_instances,
        strict=True,
    ):
        what = f", {instances} of {everything} instances" if instances < everything else ""
        if deleted:
            what = f", deleted there on {show_time(deleted)}"
        yield f"{who}, receipt of {show_time(when)}{what}"


_SHOWN = 50


def _show_series(source: pb.Study) -> None:
    print_line()
    show_table(
        (
            ">SERIES",
            "MOD",
            Column("DESCRIPTION", least=12),
            ">INST",
            Column("SERIES UID", least=16, is_middle=True),
        ),
        [
            (x.series_number, x.modality, x.description, x.instances, x.series_instance_uid)
            for x in source.series_entries[:_SHOWN]
        ],
        "No series.",
    )
    if (more := len(source.series_entries) - _SHOWN) > 0:
        print_line(f"and {more} more series; --json shows all")


def _show_packages(source: pb.Study) -> None:
    print_line()
    for package in source.packages[:_SHOWN]:
        came = f"from {package.received_from}" if package.received_from else "imported here"
        print_line(
            f"{'package':>12}  {package.package_id[:8]}  {package.instances} instances,"
            f" {show_time(package.created_seconds)}, {came}{_doubts(package)}"
        )
        if package.received_from:
            words = (
                package.recipient and f"for {package.recipient}",
                package.priority,
                package.note,
            )
            print_line(f"{'':>12}  {'; '.join(filter(None, words))}")
        for further in package.further_deliveries:
            recipient = further.recipient and f"for {further.recipient}"
            words = (recipient, further.priority, further.note)
            print_line(
                f"{'':>12}  sent by {further.sender}, too, {show_time(further.received_seconds)}:"
                f" {'; '.join(filter(None, words))}"
            )
    if (more := len(source.packages) - _SHOWN) > 0:
        print_line(f"and {more} more packages; --json shows all")


def _doubts(package: pb.Package) -> str:
    """Return what this node's own examination says of a received package; empty for nothing."""
    held = f", {package.held_instances} held" if package.held_instances else ""
    return held + (f", {package.flagged_instances} odd" if package.flagged_instances else "")


@click.command()
@click.argument("uid", metavar="STUDY")
@click.argument("directory")
@origin_option
@click.option(
    "--dicomdir", is_flag=True, help="Write a DICOMDIR too. Files that it cannot list are named."
)
@click.option(
    "--safe-preamble",
    is_flag=True,
    help="Zero the 128 bytes before DICM: the files are not byte for byte what came in.",
)
@click.option("--all-versions", is_flag=True, help="Every version of an instance.")
@click.option(
    "--include-held", is_flag=True, help="Include held instances. The audit log records it."
)
@yes_option
@as_json
@click.pass_context
def export(
    context: click.Context,
    uid: str,
    directory: str,
    origin: str,
    dicomdir: bool,
    safe_preamble: bool,
    all_versions: bool,
    include_held: bool,
    yes: bool,
    json_: bool,
) -> None:
    """Write a study's files into a new folder, byte for byte as they came in.

    STUDY is its number in a list, its UID or the beginning of it, its accession number, or words
    that find no other study: then it is shown, and asked about unless --yes is given.

    The folder must be yours, and no other user may be able to write in it or above it. Where
    several facilities sealed different images of the study, --origin says whose. Instances that
    this node holds (an executable in the preamble, say) are left out and named; the exit status
    is 1 then. It is 1, too, where a DICOMDIR was asked for and does not list every file; all files
    are exported then. Of several versions of an instance the latest is exported, and the others
    are counted; with --all-versions they are files that begin with OV.

    \b
    Examples:
      emix export s12 ~/for-the-pacs
      emix export 1.2.840.113619.2 ~/ours --origin own
    """
    target = safe_paths.absolute(Path(directory))
    uid = chosen(context, uid, is_sure=yes)
    request = pb.ExportStudyRequest(
        study=uid,
        directory=encodable(str(target)),
        dicomdir=dicomdir,
        safe_preamble=safe_preamble,
        all_versions=all_versions,
        include_held=include_held,
        origin=origin,
    )
    try:
        above = target.parent.stat()
        request.parent_device, request.parent_inode = above.st_dev, above.st_ino
    except FileNotFoundError as exc:
        raise safe_paths.nothing_above(target.parent, target) from exc
    except OSError:
        pass  # then the node says what is wrong
    exported = _Exported(is_told=not json_)
    try:
        with asking_for_origin(context, uid, "export", uid, directory):
            is_named = encodable(str(target)) == str(target)  # else only this process can
            if not is_named or not _export(context, request, exported):
                _export_streamed(context, request, target, exported)
    except KeyboardInterrupt:
        print_error("interrupted; nothing of the export was left")
        raise SystemExit(130) from None
    if json_:
        show_json(
            {
                "directory": str(target),
                "origin": exported.origin,
                "instances": exported.done,
                "bytes": exported.size,
                "is_byte_exact": not safe_preamble,
                "held": [as_dict(found) for found in exported.held],
                "has_dicomdir": dicomdir and not exported.lacks_dicomdir,
                "unlisted": [as_dict(found) for found in exported.unlisted],
                "older_versions": exported.older_versions,
                "unfinished_imports": exported.unfinished_imports,
            }
        )
    else:
        exported.show_end(directory, is_exact=not safe_preamble)
    if exported.is_partial:
        raise SystemExit(1)


class _Exported:
    """What an export has told so far."""

    def __init__(self, *, is_told: bool) -> None:
        self._is_told = is_told
        self.done = self.size = 0
        self.origin = ""
        self.held: list[pb.HeldInstance] = []
        self.unlisted: list[pb.UnlistedFile] = []
        self.older_versions = 0
        self.unfinished_imports: list[int] = []
        self.lacks_dicomdir = False
        self.why_no_dicomdir = "the node's log says why"

    def note(self, event: pb.ExportStudyResponse) -> None:
        """Take in what is not a piece of a file."""
        self.origin = event.origin or self.origin
        if event.HasField("held"):
            self.held.append(event.held)
            if self._is_told:
                print_line(
                    Styled("    held", "yellow"),
                    f"  {event.held.sop_instance_uid}: {'; '.join(event.held.reasons)}"
                    f" (number {event.held.held_id})",
                )
        elif event.HasField("unlisted"):
            self.unlisted.append(event.unlisted)
        elif event.without_dicomdir:
            self.lacks_dicomdir = True
        else:
            self.done, self.size = event.instances_done, event.bytes_done
            self.older_versions = event.older_versions or self.older_versions
            self.unfinished_imports += event.unfinished_imports

    @property
    def is_partial(self) -> bool:
        """Whether something was left out that a person may expect."""
        left_out = (self.held, self.unlisted, self.lacks_dicomdir, self.unfinished_imports)
        return any(left_out)

    def show_end(self, directory: str, *, is_exact: bool) -> None:
        """Say what was done."""
        print_line(
            f"{self.done} instances, {show_bytes(self.size)} in {directory}; sealed by"
            f" {self.origin}."
        )
        if not is_exact:
            print_line("Not byte for byte: the preambles were zeroed.")
        for number in self.unfinished_imports:
            print_line(incomplete(number))
        if self.older_versions:
            print_line(
                f"{self.older_versions} older versions were left out: --all-versions writes them,"
                " too."
            )
        if self.held:
            print_line(
                f"{len(self.held)} instances were left out: `emix held release NUMBER` lets one"
                " go, --include-held all of them."
            )
        if self.unlisted:
            what = "no DICOMDIR can" if self.lacks_dicomdir else "the DICOMDIR does not"
            print_line(f"{len(self.unlisted)} files are exported, and {what} list them:")
            for found in self.unlisted[:_NAMED_FILES]:
                print_line(f"  {found.name}: {found.reason}")
            if len(self.unlisted) > _NAMED_FILES:
                print_line(f"  and {len(self.unlisted) - _NAMED_FILES} more; see --json")
        if self.lacks_dicomdir:
            why = "none of them can be listed" if self.unlisted else self.why_no_dicomdir
            print_line(f"All files are exported, and no DICOMDIR was written for them: {why}.")


def _export(context: click.Context, request: pb.ExportStudyRequest, exported: _Exported) -> bool:
    """Have the node write the files; False where it may not."""
    with (
        node_client(context) as client,
        ProgressBar("exporting") as bar,
        client.stream("StudyService.ExportStudy", request) as events,
    ):
        for event in events:
            if event.unwritable:
                return False
            exported.note(event)
            bar.update(event.bytes_done, event.bytes_total)
    return True


def _export_streamed(
    context: click.Context,
    request: pb.ExportStudyRequest,
    target: Path,
    exported: _Exported,
) -> None:
    """Write the files here, for a node that may not."""
    from node.dicom.dicomdir import NoDicomdir, Unlisted, write_dicomdir
    from node.store.export_folder import ExportFolder

    request.stream = True
    with (
        ExportFolder(target) as folder,
        node_client(context) as client,
        ProgressBar("exporting") as bar,
        client.stream("StudyService.ExportStudy", request) as events,
    ):
        for event in events:
            if event.HasField("piece"):
                folder.write(event.piece.name, event.piece.offset, event.piece.data)
                continue
            if event.bytes_total and not event.bytes_done:
                folder.check_room(event.bytes_total, event.instances_total)
            exported.note(event)
            bar.update(event.bytes_done, event.bytes_total)
        if request.dicomdir:
            try:
                unlisted: Sequence[Unlisted] = write_dicomdir(folder.partial)
            except NoDicomdir as exc:
                unlisted, exported.lacks_dicomdir = exc.unlisted, True
                exported.why_no_dicomdir = str(exc)
            exported.unlisted = [
                pb.UnlistedFile(name=found.name, reason=found.reason) for found in unlisted
            ]
        folder.publish()


@click.command()
@click.argument("uid", metavar="STUDY")
@origin_option
@yes_option
@as_json
@click.pass_context
def delete(context: click.Context, uid: str, origin: str, yes: bool, json_: bool) -> None:
    """Delete a study here. Facilities that it was sent to keep it.

    Imported instances of it that are held, and what an unfinished import has kept of it, stay, and
    are named; the exit status is 1 then.

    It shows what is meant, and asks first. --yes answers for a script, which has to name the study
    by its number in a list, its UID or the beginning of it, or its accession number.

    \b
    Examples:
      emix delete s12
      emix delete 1.2.840.113619.2 --origin own --yes
    """
    answer = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=uid))
    if answer.chosen_by == "words" and (yes or json_):
        raise UsageError("search words are no name for what is deleted unseen: give its number")
    named = answer.sources[0].study_instance_uid
    origin = origin or answer.chosen_origin
    if not yes and not json_:
        for source in _of_origin(context, answer.sources, origin):
            print_line(f"{summary_of(source)}, from {_origin(source)}, {named}")
    ask("Delete it from this node?", is_sure=yes)
    request = pb.DeleteStudyRequest(study=named, origin=origin)
    with asking_for_origin(context, named, "delete", named):
        done = run_call(context, "StudyService.DeleteStudy", request)
    text = f"Deleted {done.instances} instances in {done.packages} packages."
    show_done(done, text, json_=json_)
    if not json_:
        _show_left(done)
    if done.held_instances or done.unfinished_imports:
        raise SystemExit(1)


def _show_left(done: pb.DeleteStudyResponse) -> None:
    """Say what is still here of a study that was deleted, and how that is deleted."""
    if done.held_instances:
        numbers = " ".join(str(found.held_id) for found in done.held[:_NAMED_FILES])
        more = done.held_instances - _NAMED_FILES
        print_line(
            f"{done.held_instances} instances of it are held, and stay: `emix held discard"
            f" {numbers}` deletes them"
            + (f"; {more} more are in `emix held`." if more > 0 else ".")
        )
    for number in done.unfinished_imports:
        print_line(
            f"What import i{number} has kept of it stays: `emix imports discard i{number}` deletes"
            " all that it has kept."
        )


def _of_origin(context: click.Context, found: Iterable[pb.Study], origin: str) -> list[pb.Study]:
    """Return those entries of a study that an --origin means; all where none is given."""
    if origin == "own":
        origin = run_call(context, "NodeService.GetIdentity", pb.GetIdentityRequest()).facility_id
    wanted = origin.casefold()
    return [
        source
        for source in found
        if source.origin.casefold().startswith(wanted) or source.origin_name.casefold() == wanted
    ]


COMMANDS = (import_, held, studies, study, export, delete)
