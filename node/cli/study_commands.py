"""Commands about studies: import, held, studies, study, export, delete."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import node_client, run_call
from node.cli.node_commands import as_json
from node.cli.origins import asking_for_origin, origin_option
from node.cli.streaming import Said, stream_files
from node.errors import StoreError, UsageError
from node.terminal.output import (
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
    show_done,
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

    \b
    Examples:
      emix import /media/cdrom
      emix import study.zip /srv/incoming/2026-11-24
    """
    if not all(paths):
        raise UsageError("an empty path")
    absolute = [Path(path).absolute() for path in paths]
    for path in absolute:
        try:
            path.lstat()
        except OSError as exc:
            raise UsageError(f"{path} cannot be looked at ({exc.strerror})") from exc
    done = _import(context, absolute, is_streamed=stream, json_=json_)
    summary = done.summary
    if summary is None:
        print_error("the import was cancelled; nothing of it was kept")
        raise SystemExit(130)
    if json_:
        show_json(
            {
                "summary": {**as_dict(summary), "study_instance_uids": done.studies},
                "findings": [as_dict(finding) for finding in done.findings],
            }
        )
    else:
        _show_summary(summary, done.studies)
    found = summary.carried + summary.known + summary.held
    if not found and not summary.refused:
        print_error(f"no DICOM file was found in {_listed(absolute)}")
    if not found or summary.held or summary.refused or summary.missing:
        raise SystemExit(1)


@dataclass
class _Imported:
    """What an import told; no summary if it was cancelled."""

    summary: pb.ImportSummary | None = None
    findings: list[pb.ImportFinding] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    missing: int = 0


def _import(
    context: click.Context, paths: list[Path], *, is_streamed: bool, json_: bool
) -> _Imported:
    """Run an import; at Ctrl-C the node is told to leave nothing of it behind."""
    done = _Imported()

    def note(finding: pb.ImportFinding) -> None:
        done.findings.append(finding)
        done.missing += finding.verdict == "missing"
        is_shown = finding.verdict != "missing" or done.missing <= _NAMED_MISSING
        if is_shown and not json_:
            _show_finding(finding)

    said: Said = SimpleQueue()
    requests = stream_files(paths, said, note) if is_streamed else _name_paths(paths, said)
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
        return _import(context, paths, is_streamed=True, json_=json_)
    if done.summary is not None and is_streamed:
        # What could not even be sent was refused here.
        done.summary.refused = sum(finding.verdict == "refuse" for finding in done.findings)
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
        (">NUMBER", "SINCE", ">SIZE", "FILE OR SENDER", "WHY"),
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
    released = []
    for number in numbers:
        request = pb.DecideHeldRequest(held_id=number, release=True)
        answer = run_call(context, "StudyService.DecideHeld", request)
        released.append({"held_id": number, "package_id": answer.package_id})
        if not json_:
            print_line(f"{number}: released as package {answer.package_id[:8]}")
    if json_:
        show_json({"released": released})


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
    for number in numbers:
        request = pb.DecideHeldRequest(held_id=number, release=False)
        run_call(context, "StudyService.DecideHeld", request)
        if not json_:
            print_line(f"{number}: discarded")
    if json_:
        show_json({"discarded": list(numbers)})


@click.command()
@click.argument("query", nargs=-1)
@limited
@as_json
@click.pass_context
def studies(context: click.Context, query: tuple[str, ...], limit: int | None, json_: bool) -> None:
    """List studies, newest first; every word of QUERY must occur in them.

    \b
    Examples:
      emix studies
      emix studies smith 20261124 CT
    """
    request = pb.ListStudiesRequest(query=" ".join(query), limit=limit_of(limit, json_))
    answer = run_call(context, "StudyService.ListStudies", request)
    if json_:
        show_json(answer)
    else:
        _show_studies(answer.studies, "No study matches." if query else "No study is here yet.")
        note_limit(request.limit, answer.studies)


def _show_studies(found: object, empty: str) -> None:
    show_table(
        (
            "PATIENT",
            "ID",
            "DATE",
            "MOD",
            "DESCRIPTION",
            ">SER",
            ">INST",
            ">SIZE",
            "ORIGIN",
            "STUDY UID",
        ),
        [
            (
                s.patient_name,
                s.patient_id,
                s.study_date,
                "/".join(s.modalities),
                s.study_description,
                s.series,
                s.instances,
                show_bytes(s.plaintext_bytes),
                _origin(s),
                s.study_instance_uid,
            )
            for s in found  # type: ignore[attr-defined]
        ],
        empty,
    )


def _origin(study: pb.Study) -> str:
    return study.origin_name or f"{study.origin[:7]} (not paired)"


@click.command()
@click.argument("uid")
@as_json
@click.pass_context
def study(context: click.Context, uid: str, json_: bool) -> None:
    """Show one study: its packages, origin, versions, where it was sent.

    \b
    Example:
      emix study 1.2.840.113619.2
    """
    answer = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=uid))
    if json_:
        show_json(answer)
        return
    for source in answer.sources:
        rows = [
            ("study", source.study_instance_uid),
            ("origin", f"{_origin(source)}  {source.origin}"),
            ("patient", f"{source.patient_name}  {source.patient_id}"),
            ("examination", f"{source.study_date} {source.study_description}"),
            (
                "content",
                f"{source.series} series, {source.instances} instances,"
                f" {show_bytes(source.plaintext_bytes)}"
                f" (sealed {show_bytes(source.sealed_bytes)})",
            ),
            ("sent to", ", ".join(source.sent_to) or "nobody"),
        ]
        if source.versioned_instances:
            rows.append(("versions", f"{source.versioned_instances} more than instances"))
        for name, value in rows:
            print_line(f"{name:>12}  {value}")
        for package in source.packages:
            came = f"from {package.received_from}" if package.received_from else "imported here"
            print_line(
                f"{'package':>12}  {package.package_id[:8]}  {package.instances} instances,"
                f" {show_time(package.created_seconds)}, {came}{_doubts(package)}"
            )
        print_line()
    if len(answer.sources) > 1:
        print_line(f"{len(answer.sources)} facilities have sealed this study; they stay apart.")


def _doubts(package: pb.Package) -> str:
    """Return what this node's own examination says of a received package; empty for nothing."""
    held = f", {package.held_instances} held" if package.held_instances else ""
    return held + (f", {package.flagged_instances} odd" if package.flagged_instances else "")


@click.command()
@click.argument("uid")
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
    json_: bool,
) -> None:
    """Write a study's files into a new folder, byte for byte as they came in.

    The folder must be yours, and no other user may be able to write in it or above it. Where
    several facilities sealed different images of the study, --origin says whose. Instances that
    this node holds (an executable in the preamble, say) are left out and named; the exit status
    is 1 then. It is 1, too, where a DICOMDIR was asked for and does not list every file; all files
    are exported then.

    \b
    Examples:
      emix export 1.2.840.113619.2 ~/for-the-pacs
      emix export 1.2.840.113619.2 ~/ours --origin own
    """
    target = Path(directory).absolute()
    request = pb.ExportStudyRequest(
        study=uid,
        directory=str(target),
        dicomdir=dicomdir,
        safe_preamble=safe_preamble,
        all_versions=all_versions,
        include_held=include_held,
        origin=origin,
    )
    with suppress(OSError):  # then the node says what is wrong
        above = target.parent.stat()
        request.parent_device, request.parent_inode = above.st_dev, above.st_ino
    exported = _Exported(is_told=not json_)
    try:
        with asking_for_origin(context, uid, "export", uid, directory):
            if not _export(context, request, exported):
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
                "unlisted": exported.unlisted,
            }
        )
    else:
        exported.show_end(directory, is_exact=not safe_preamble)
    if exported.held or exported.unlisted or exported.lacks_dicomdir:
        raise SystemExit(1)


class _Exported:
    """What an export has told so far."""

    def __init__(self, *, is_told: bool) -> None:
        self._is_told = is_told
        self.done = self.size = 0
        self.origin = ""
        self.held: list[pb.HeldInstance] = []
        self.unlisted: list[str] = []
        self.lacks_dicomdir = False

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
        elif event.unlisted:
            self.unlisted.append(event.unlisted)
        elif event.without_dicomdir:
            self.lacks_dicomdir = True
        else:
            self.done, self.size = event.instances_done, event.bytes_done

    def show_end(self, directory: str, *, is_exact: bool) -> None:
        """Say what was done."""
        print_line(
            f"{self.done} instances, {show_bytes(self.size)} in {directory}; sealed by"
            f" {self.origin}."
        )
        if not is_exact:
            print_line("Not byte for byte: the preambles were zeroed.")
        if self.held:
            print_line(
                f"{len(self.held)} instances were left out: `emix held release NUMBER` lets one"
                " go, --include-held all of them."
            )
        if self.unlisted:
            names = ", ".join(self.unlisted[:_NAMED_FILES])
            more = ", …" if len(self.unlisted) > _NAMED_FILES else ""
            print_line(
                f"{len(self.unlisted)} files are exported, and the DICOMDIR does not list them:"
                f" {names}{more}"
            )
        if self.lacks_dicomdir:
            print_line("All files are exported, and a DICOMDIR could not be written for them.")


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
    from node.dicom.dicomdir import write_dicomdir
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
                folder.hold_room(event.bytes_total, event.instances_total)
            exported.note(event)
            bar.update(event.bytes_done, event.bytes_total)
        if request.dicomdir:
            try:
                exported.unlisted = write_dicomdir(folder.partial)
            except StoreError:
                exported.lacks_dicomdir = True
        folder.publish()


@click.command()
@click.argument("uid")
@origin_option
@yes_option
@as_json
@click.pass_context
def delete(context: click.Context, uid: str, origin: str, yes: bool, json_: bool) -> None:
    """Delete a study here. Facilities that it was sent to keep it.

    It asks first, and shows what is meant; --yes answers for a script.

    \b
    Examples:
      emix delete 1.2.840.113619.2
      emix delete 1.2.840.113619.2 --origin own --yes
    """
    if not yes and not json_:
        for source in _of_origin(context, uid, origin):
            print_line(
                f"{source.study_instance_uid}: {source.patient_name}, {source.instances}"
                f" instances, from {_origin(source)}"
            )
    ask("Delete it from this node?", is_sure=yes)
    request = pb.DeleteStudyRequest(study=uid, origin=origin)
    with asking_for_origin(context, uid, "delete", uid):
        answer = run_call(context, "StudyService.DeleteStudy", request)
    text = f"Deleted {answer.instances} instances in {answer.packages} packages."
    show_done(answer, text, json_=json_)


def _of_origin(context: click.Context, uid: str, origin: str) -> list[pb.Study]:
    """Return those entries of a study that an --origin means; all where none is given."""
    found = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=uid)).sources
    if not origin:
        return list(found)
    if origin == "own":
        origin = run_call(context, "NodeService.GetIdentity", pb.GetIdentityRequest()).facility_id
    wanted = origin.casefold()
    return [
        source
        for source in found
        if source.origin.casefold().startswith(wanted) or source.origin_name.casefold() == wanted
    ]


COMMANDS = (import_, held, studies, study, export, delete)
