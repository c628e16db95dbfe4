"""Converts values of the node to messages of the admin services."""

from collections.abc import Iterator

from emix.admin.v1 import admin_pb2 as pb

from node.documents.peers import Peer
from node.domain.catalogue import Found
from node.domain.connections import PeerWay
from node.domain.held import HeldInstance
from node.domain.ids import PackageId
from node.domain.imports import UnfinishedImport
from node.domain.patients import Patient
from node.domain.query import Level
from node.domain.studies import StudySource
from node.domain.transfers import Priority, Transfer
from node.domain.waiting import advice_on
from node.errors import UsageError

_PACKAGES, _SERIES = 50, 200
"""Of a study in one entry of a list: each package may have a note of some kilobytes."""

_PATIENTS, _STUDIES = 20, 20

MOST_HELD = 100
"""How many held instances are named in the response about a study."""


def peer_to_wire(
    peer: Peer, way: PeerWay, why_not: str, bytes_a_second: float, warning: str
) -> pb.Peer:
    """Return a peer with what is known of the way to it."""
    state: str = way.state
    route: str = way.route or ""
    problem = why_not or advice_on(way.problem)
    if peer.is_removed:
        state, route, problem = "removed", "", ""
    return pb.Peer(
        facility_id=str(peer.facility_id),
        display_name=peer.name,
        node_id=str(peer.identity.node_id),
        state=state,
        route=route,
        endpoint=way.endpoint or (peer.endpoints[0] if peer.endpoints else ""),
        last_seen_seconds=int(peer.last_seen_time),
        round_trip_milliseconds=way.round_trip_seconds * 1000,
        pinned_how=peer.pinned_how,
        pinned_seconds=int(peer.pinned_time),
        problem=problem,
        software="" if peer.is_removed else way.software,
        bytes_a_second=int(bytes_a_second),
        warning=warning,
    )


def transfer_to_wire(
    row: Transfer, peer_name: str, round_trip_seconds: float, reason: str
) -> pb.Transfer:
    """Return a transfer with its peer's name, the round trip to it now, and why it waits."""
    return pb.Transfer(
        number=row.id,
        transfer_id=str(row.transfer_id),
        direction=row.direction,
        state=row.state,
        peer=str(row.peer),
        peer_name=peer_name,
        study_instance_uid=row.study_uid,
        package_id=str(row.package_id),
        origin=str(row.origin),
        priority=row.priority.name.lower(),
        bytes_done=row.bytes_done,
        bytes_total=row.bytes_total,
        bytes_carried=row.bytes_carried,
        instances=row.instances,
        reason=reason,
        recipient=row.recipient,
        summary=_offer_summary(row),
        note=row.note,
        created_seconds=int(row.created_time),
        updated_seconds=int(row.updated_time),
        deleted_seconds=int(row.deleted_time),
        route=row.route,
        plaintext_bytes=row.plaintext_bytes,
        bytes_a_second=int(row.bytes_a_second),
        round_trip_milliseconds=round_trip_seconds * 1000,
    )


def _offer_summary(row: Transfer) -> pb.OfferSummary | None:
    of = row.summary
    if of is None:
        return None
    return pb.OfferSummary(
        patients=map(_patient, of.patients),
        study_instance_uid=of.study_uid,
        study_date=of.study_date,
        description=of.description,
        modalities=of.modalities.split(),
        accession_number=of.accession_number,
    )


def study_to_wire(
    source: StudySource, origin_name: str, names: dict[bytes, str], *, is_pinned: bool
) -> Iterator[pb.Study]:
    """Yield one source of a study; `names` has the facilities that are known here.

    A study of very many packages is continued in further entries, which have nothing else.
    """
    packages = [_package(row, names) for row in source.packages]
    series = [_series(row) for row in source.series_rows]
    yield pb.Study(
        study_instance_uid=source.study_uid,
        origin=str(source.origin),
        origin_name=origin_name,
        origin_pinned=is_pinned,
        patients=map(_patient, source.patients[:_PATIENTS]),
        patients_total=len(source.patients),
        unfinished_imports=source.unfinished_imports,
        patient_name=source.index.get("patient_name", ""),
        patient_id=source.index.get("patient_id", ""),
        study_date=source.index.get("study_date", ""),
        study_description=source.index.get("study_description", ""),
        birth_date=source.index.get("birth_date", ""),
        sex=source.index.get("sex", ""),
        accession_number=source.index.get("accession_number", ""),
        referring_physician=source.index.get("referring_physician", ""),
        institution=source.index.get("institution", ""),
        number=source.number,
        modalities=source.index.get("modalities", "").split(),
        series=source.series,
        instances=source.instances,
        plaintext_bytes=source.plaintext_bytes,
        sealed_bytes=source.sealed_bytes,
        packages=packages[:_PACKAGES],
        series_entries=series[:_SERIES],
        sent_to=[names.get(sent.peer, "?") for sent in source.sent_to],
        delivered_seconds=[int(sent.delivered_time) for sent in source.sent_to],
        deleted_seconds=[int(sent.deleted_time) for sent in source.sent_to],
        delivered_instances=[sent.instances for sent in source.sent_to],
        versioned_instances=source.versioned_instances,
    )
    for first in range(1, max(-(-len(packages) // _PACKAGES), -(-len(series) // _SERIES))):
        yield pb.Study(
            study_instance_uid=source.study_uid,
            origin=str(source.origin),
            packages=packages[first * _PACKAGES : (first + 1) * _PACKAGES],
            series_entries=series[first * _SERIES : (first + 1) * _SERIES],
        )


def level_of(text: str) -> Level:
    """Return the level that a request names.

    Raises:
        UsageError: no level has that name.
    """
    try:
        return Level(text or Level.STUDY)
    except ValueError:
        raise UsageError("a level is study, series or image") from None


def match_to_wire(found: Found) -> pb.Match:
    """Return an answer of the catalogue."""
    return pb.Match(
        study_instance_uid=found.study_uid,
        origin=str(found.origin),
        number=found.number,
        values={keyword: value for keyword, value in found.values.items() if value},
    )


def import_to_wire(found: UnfinishedImport, *, is_running: bool) -> pb.UnfinishedImport:
    """Return an import that runs, or was not finished."""
    return pb.UnfinishedImport(
        number=found.id,
        sources=found.sources,
        operator=found.operator,
        begun_seconds=int(found.begun_time),
        is_running=is_running,
        problem=found.problem,
        studies=[
            pb.PartialStudy(
                study_instance_uid=study.study_uid,
                patients=map(_patient, study.patients[:_PATIENTS]),
                instances=study.instances,
            )
            for study in found.studies[:_STUDIES]
        ],
        studies_total=len(found.studies),
        instances=sum(study.instances for study in found.studies),
        sealed_bytes=sum(study.sealed_bytes for study in found.studies),
    )


def _patient(patient: Patient) -> pb.Patient:
    return pb.Patient(
        name=patient.name,
        patient_id=patient.patient_id,
        birth_date=patient.birth_date,
        sex=patient.sex,
    )


def held_to_wire(found: HeldInstance, names: dict[bytes, str]) -> pb.HeldInstance:
    """Return an instance that waits for a person; `names` as in `study_to_wire`."""
    sender = found.received_from
    return pb.HeldInstance(
        held_id=found.id,
        reasons=found.reasons,
        size_bytes=found.size_bytes,
        sop_instance_uid=found.sop_instance_uid,
        study_instance_uid=found.study_uid,
        label=found.label,
        held_seconds=int(found.found_time),
        received_from=names.get(sender.digest, str(sender)) if sender else "",
    )


def _series(values: dict[str, str]) -> pb.Series:
    return pb.Series(
        series_instance_uid=values["SeriesInstanceUID"],
        series_number=values["SeriesNumber"],
        modality=values["Modality"],
        description=values["SeriesDescription"],
        instances=int(values["NumberOfSeriesRelatedInstances"]),
    )


def _package(row: dict[str, object], names: dict[bytes, str]) -> pb.Package:
    received = row["received_from"]
    return pb.Package(
        package_id=str(PackageId(row["package_id"])),  # type: ignore[arg-type]
        instances=row["instances"],  # type: ignore[arg-type]
        created_seconds=int(row["created_time"]),  # type: ignore[call-overload]
        received_from=names.get(received, "?") if isinstance(received, bytes) else "",
        sealed_bytes=row["sealed_bytes"],  # type: ignore[arg-type]
        received_seconds=int(row["received_time"] or 0),  # type: ignore[call-overload]
        recipient=str(row["recipient"] or ""),
        note=str(row["note"] or ""),
        priority="" if row["priority"] is None else Priority(row["priority"]).name.lower(),  # type: ignore[arg-type]
        held_instances=row["held"],  # type: ignore[arg-type]
        flagged_instances=row["flagged"],  # type: ignore[arg-type]
        hold_reasons=row["hold_reasons"],  # type: ignore[arg-type]
        attachments=[
            pb.Attachment(
                media_type=one.media_type, size_bytes=one.size_bytes, about_uids=one.about
            )
            for one in row.get("attachments", ())  # type: ignore[attr-defined]
        ],
        attachments_total=row["attachments_total"],  # type: ignore[arg-type]
        further_deliveries=[
            pb.PackageDelivery(
                sender=names.get(further["peer"], "?"),
                received_seconds=int(further["received_time"]),
                recipient=further["recipient"],
                note=further["note"],
                priority=Priority(further["priority"]).name.lower(),
            )
            for further in row["further"]  # type: ignore[attr-defined]
        ],
    )
