"""The export command."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.choosing import chosen, incomplete
from node.cli.client import node_client
from node.cli.homes import home_path
from node.cli.origins import asking_for_origin, origin_option
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
    yes_option,
)

if TYPE_CHECKING:
    from node.dicom.dicomdir import NoDicomdir, Unlisted

_NAMED_FILES = 10


@click.command()
@click.argument("uid", metavar="STUDY")
@click.argument("directory")
@origin_option
@click.option(
    "--dicomdir", is_flag=True, help="Write a DICOMDIR, too; names files that it cannot list."
)
@click.option(
    "--safe-preamble",
    is_flag=True,
    help="Zero the preambles (128 bytes): files then differ from the originals.",
)
@click.option("--all-versions", is_flag=True, help="Export every version of an instance.")
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
    """Write a study's files into a new folder, or a ZIP file, byte for byte as they came in.

    STUDY is its number in a list, its UID or the beginning of it, its accession number, or search
    words that match one study only: it is shown, and you confirm it, unless --yes is given.

    The folder must be yours, and no other user may have write access to it or above it. If the
    name ends with .zip, a ZIP file is written, without compression.

    If several facilities sealed different images of the study, choose one with --origin. Held
    instances (an executable in the preamble, say) are left out and named, and the exit status is
    1. It is also 1 if a DICOMDIR was requested and does not list every file; all files are
    exported all the same. Of several versions of an instance only the latest is exported;
    --all-versions exports the others, too, as files that begin with OV.

    \b
    Examples:
      emix export s12 ~/for-the-pacs
      emix export 1.2.840.113619.2 ~/ours --origin own
      emix export s12 ~/for-the-portal.zip --dicomdir
    """
    target = safe_paths.absolute(Path(directory))
    is_zip = target.suffix.lower() == ".zip"
    if target.resolve().is_relative_to(home_path(context).resolve()):
        raise UsageError("a home is encrypted and an export is not; choose another folder")
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
    exported = _Exported(is_shown=not json_)
    try:
        with asking_for_origin(context, uid, "export", uid, directory):
            is_named = encodable(str(target)) == str(target)  # else only this process can
            if is_zip:
                _export_zip(context, request, target, exported)
            elif not is_named or not _export(context, request, exported):
                _export_streamed(context, request, target, exported)
    except KeyboardInterrupt:
        print_error("interrupted; the partial export was removed")
        raise SystemExit(130) from None
    if json_:
        show_json(
            {
                "directory": str(target),
                "origin": exported.origin,
                "instances": exported.done - exported.attachments,
                "attachments": exported.attachments,
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
    """What the node has reported about an export so far."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self.done = self.size = 0
        self.origin = ""
        self.held: list[pb.HeldInstance] = []
        self.unlisted: list[pb.UnlistedFile] = []
        self.older_versions = self.attachments = 0
        self.unfinished_imports: list[int] = []
        self.lacks_dicomdir = False
        self.why_no_dicomdir = "the node's log says why"

    def note(self, event: pb.ExportStudyResponse) -> None:
        """Process a response that is not a piece of a file."""
        self.origin = event.origin or self.origin
        if event.HasField("held"):
            self.held.append(event.held)
            if self._is_shown:
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
            self.attachments = event.attachments or self.attachments

    def note_unlisted(self, unlisted: "Sequence[Unlisted]") -> None:
        """Take in what the DICOMDIR does not list."""
        self.unlisted = [pb.UnlistedFile(name=one.name, reason=one.reason) for one in unlisted]

    def note_no_dicomdir(self, why: "NoDicomdir") -> None:
        """Take in why there is none."""
        self.note_unlisted(why.unlisted)
        self.lacks_dicomdir = True
        self.why_no_dicomdir = str(why)

    @property
    def is_partial(self) -> bool:
        """Whether something was left out that a person may expect."""
        left_out = (self.held, self.unlisted, self.lacks_dicomdir, self.unfinished_imports)
        return any(left_out)

    def show_end(self, directory: str, *, is_exact: bool) -> None:
        """Say what was done."""
        attached = f" and {self.attachments} attachments" if self.attachments else ""
        print_line(
            f"{self.done - self.attachments} instances{attached}, {show_bytes(self.size)} in"
            f" {directory}; sealed by {self.origin}."
        )
        if not is_exact:
            print_line("The preambles were zeroed: files differ from the originals there.")
        for number in self.unfinished_imports:
            print_line(incomplete(number))
        if self.older_versions:
            print_line(
                f"{self.older_versions} older versions were left out: --all-versions writes them,"
                " too."
            )
        if self.held:
            print_line(
                f"{len(self.held)} held instances were left out: `emix held release NUMBER`"
                " releases one, --include-held exports all."
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
    from node.dicom.dicomdir import NoDicomdir, write_dicomdir
    from node.outside.export_folder import ExportFolder

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
                exported.note_unlisted(write_dicomdir(folder.partial))
            except NoDicomdir as exc:
                exported.note_no_dicomdir(exc)
        folder.publish()


def _export_zip(
    context: click.Context, request: pb.ExportStudyRequest, target: Path, exported: _Exported
) -> None:
    """Write a ZIP file here, of what the node streams in order."""
    from node.dicom.dicomdir import NoDicomdir, dicomdir_of_zip
    from node.outside.export_zip import ExportZip

    request.stream = request.in_order = True
    with (
        ExportZip(target) as archive,
        node_client(context) as client,
        ProgressBar("exporting") as bar,
        client.stream("StudyService.ExportStudy", request) as events,
    ):
        for event in events:
            if event.HasField("piece"):
                piece = event.piece
                archive.write(piece.name, piece.offset, piece.data, piece.size)
                continue
            if event.bytes_total and not event.bytes_done:
                archive.check_room(event.bytes_total, event.instances_total)
            exported.note(event)
            bar.update(event.bytes_done, event.bytes_total)
        if request.dicomdir:
            try:
                with archive.written() as handle:
                    made, unlisted = dicomdir_of_zip(handle)
            except NoDicomdir as exc:
                exported.note_no_dicomdir(exc)
            else:
                archive.add("DICOMDIR", made)
                exported.note_unlisted(unlisted)
        archive.publish()


COMMANDS = (export,)
