"""Commands about studies: studies, study, delete."""

from collections.abc import Iterable, Iterator, Sequence

import click
from emix.admin.v1 import admin_pb2 as pb

from node.cli.choosing import incomplete, of_patient, summary_of
from node.cli.client import run_call
from node.cli.origins import asking_for_origin, origin_option
from node.domain.names import id_letters, same_name
from node.errors import NotFound, UsageError
from node.terminal.commands import as_json
from node.terminal.output import (
    Column,
    ask,
    limit_of,
    limited,
    note_limit,
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

_NAMED_HELD = 10


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


@click.command()
@click.argument("keys", nargs=-1, metavar="[KEY=VALUE | WORD]...")
@click.option(
    "--level",
    type=click.Choice(["study", "series", "image"], case_sensitive=False),
    default="study",
    show_default=True,
    help="Whether to find studies, series or images.",
)
@click.option("--offset", type=click.IntRange(0, 2**31), default=0, help="Skip this many.")
@limited
@as_json
@click.pass_context
def query(
    context: click.Context,
    keys: tuple[str, ...],
    level: str,
    offset: int,
    limit: int | None,
    json_: bool,
) -> None:
    """Find studies, series or instances by DICOM attributes, as C-FIND and QIDO-RS do.

    A KEY is a keyword such as PatientID, or a tag in 8 hexadecimal digits. A VALUE may have the
    wildcards * and ?; dates and times may be ranges. Of several codes or UIDs, separated by
    backslashes (UIDs by commas, too), one must match. Names and descriptions match regardless of
    case and accents, IDs and codes exactly. A family name alone matches all patients with that
    family name. Every WORD must occur in the study, too, as in `emix studies`.

    \b
    Keys of a study:
      PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime
      StudyID AccessionNumber StudyDescription ReferringPhysicianName
      InstitutionName ModalitiesInStudy StudyInstanceUID
    Of a series, with --level series or image:
      Modality SeriesNumber SeriesDescription BodyPartExamined
      PerformedProcedureStepStartDate PerformedProcedureStepStartTime
      SeriesInstanceUID
    Of an image, with --level image:
      SOPInstanceUID SOPClassUID InstanceNumber Rows Columns BitsAllocated
      NumberOfFrames AvailableTransferSyntaxUID

    \b
    Examples:
      emix query PatientName='muller^*' StudyDate=20261101-20261130
      emix query --level series ModalitiesInStudy=CT Modality=CT head
      emix query --level image SeriesInstanceUID=1.2.840.113619.2.1 --json
    """
    pairs = [key.partition("=") for key in keys]
    named = [name for name, equals, _ in pairs if equals]
    if twice := next((name for name in named if named.count(name) > 1), ""):
        raise UsageError(f"{twice} is given twice; give each key once")
    request = pb.QueryRequest(
        level=level,
        keys={name: value for name, equals, value in pairs if equals},
        words=" ".join(name for name, equals, _ in pairs if not equals),
        limit=limit_of(limit, json_),
        offset=offset,
    )
    answer = run_call(context, "StudyService.Query", request)
    if json_:
        show_json(answer)
        return
    columns = _MATCHES[level]
    show_table(
        (">NO", *(Column(*heading) for heading, _ in columns)),
        [_match_row(match, [keyword for _, keyword in columns]) for match in answer.matches],
        f"Nothing matches after the first {offset}." if offset else "Nothing matches.",
    )
    if request.limit and len(answer.matches) == request.limit:
        more = offset + request.limit
        print_line(f"More may match: --offset {more}, or --limit 0 for all.", is_error=True)


_MATCHES = {
    "study": (
        (("PATIENT", 10), "PatientName"),
        (("ID", 6), "PatientID"),
        (("DATE",), "StudyDate"),
        (("MOD", 3), "ModalitiesInStudy"),
        (("DESCRIPTION", 8, False, 6), "StudyDescription"),
        (("ACCESSION", 8, False, 7), "AccessionNumber"),
        ((">SER",), "NumberOfStudyRelatedSeries"),
        ((">INST",), "NumberOfStudyRelatedInstances"),
        (("STUDY UID", 12, True), "StudyInstanceUID"),
    ),
    "series": (
        (("PATIENT", 10), "PatientName"),
        (("DATE",), "StudyDate"),
        ((">SERIES",), "SeriesNumber"),
        (("MOD",), "Modality"),
        (("DESCRIPTION", 8, False, 6), "SeriesDescription"),
        (("BODY PART", 4, False, 7), "BodyPartExamined"),
        ((">INST",), "NumberOfSeriesRelatedInstances"),
        (("SERIES UID", 12, True), "SeriesInstanceUID"),
    ),
    "image": (
        (("PATIENT", 10), "PatientName"),
        ((">SERIES",), "SeriesNumber"),
        ((">IMAGE",), "InstanceNumber"),
        ((">ROWS",), "Rows"),
        ((">COLUMNS",), "Columns"),
        ((">FRAMES",), "NumberOfFrames"),
        (("SOP INSTANCE UID", 12, True), "SOPInstanceUID"),
    ),
}
"""Columns of a level: heading, least width and what else `Column` takes; keyword."""


def _match_row(match: pb.Match, keywords: Sequence[str]) -> tuple[str, ...]:
    values = (_shown(keyword, match.values.get(keyword, "")) for keyword in keywords)
    return f"s{match.number}", *values


def _shown(keyword: str, value: str) -> str:
    if keyword == "ModalitiesInStudy":
        return value.replace(" ", "/")
    return show_day(value) if keyword.endswith("Date") else value


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

    STUDY is its number in a list, its UID or the beginning of it, its accession number, or search
    words that match one study only. All commands that need a study accept these.

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
        print_line(f"{len(answer.sources)} facilities have sealed this study; each is shown apart.")


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
        yield "versions", f"{source.versioned_instances} more versions than instances"
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
        for attachment in package.attachments[:_SHOWN]:
            about = len(attachment.about_uids)
            of_what = f"about {about} series or instances" if about else "about the study"
            print_line(
                f"{'':>12}  attached: {attachment.media_type},"
                f" {show_bytes(attachment.size_bytes)}, {of_what}"
            )
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
    """Return how many instances this node's own examination holds or flags; empty for none."""
    held = f", {package.held_instances} held" if package.held_instances else ""
    return held + (f", {package.flagged_instances} odd" if package.flagged_instances else "")


@click.command()
@click.argument("uid", metavar="STUDY")
@origin_option
@yes_option
@as_json
@click.pass_context
def delete(context: click.Context, uid: str, origin: str, yes: bool, json_: bool) -> None:
    """Delete a study here. Facilities that it was sent to keep it.

    Held imported instances of it, and instances of an unfinished import, are named and not
    deleted; the exit status is 1 then.

    Shows the study and asks first, unless --yes is given. With --yes, name the study by its number
    in a list, its UID or the beginning of it, or its accession number.

    \b
    Examples:
      emix delete s12
      emix delete 1.2.840.113619.2 --origin own --yes
    """
    answer = run_call(context, "StudyService.GetStudy", pb.GetStudyRequest(study=uid))
    if answer.chosen_by == "words" and (yes or json_):
        raise UsageError("with --yes, name the study by number, UID or accession number")
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
    """Show what remains here of a deleted study, and how to delete that."""
    if done.held_instances:
        numbers = " ".join(str(found.held_id) for found in done.held[:_NAMED_HELD])
        more = done.held_instances - _NAMED_HELD
        print_line(
            f"{done.held_instances} held instances of it were not deleted: `emix held discard"
            f" {numbers}` deletes them"
            + (f"; {more} more are in `emix held`." if more > 0 else ".")
        )
    for number in done.unfinished_imports:
        print_line(
            f"The instances of unfinished import i{number} were not deleted; to delete them:"
            f" `emix imports discard i{number}`."
        )


def _of_origin(context: click.Context, found: Iterable[pb.Study], origin: str) -> list[pb.Study]:
    """Return those entries of a study that an --origin means; all where none is given.

    It is read as the node reads it.

    Raises:
        NotFound: it means none of them, so there is nothing to ask about.
    """
    plain = id_letters(origin)
    if plain == "OWN":
        identity = run_call(context, "NodeService.GetIdentity", pb.GetIdentityRequest())
        plain = id_letters(identity.facility_id)
    meant = [
        source
        for source in found
        if id_letters(source.origin).startswith(plain) or same_name(source.origin_name, origin)
    ]
    if not meant:
        raise NotFound("that facility sealed no package of the study; see `emix study`")
    return meant


COMMANDS = (studies, query, study, delete)
