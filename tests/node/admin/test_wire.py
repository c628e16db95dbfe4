"""Messages have what the node knows, in bounds that every client takes, and nothing made up."""

from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.admin import wire
from node.documents.peers import Peer
from node.domain.catalogue import Found
from node.domain.connections import ConnectionState, PeerWay, Route
from node.domain.held import HeldInstance
from node.domain.ids import FacilityId
from node.domain.imports import PartialStudy, UnfinishedImport
from node.domain.manifest import StudyInstanceUID
from node.domain.patients import Patient
from node.domain.query import Level
from node.domain.studies import SentTo, StudySource
from node.domain.summary import Summary
from node.domain.transfers import Direction, Priority, State
from node.errors import UsageError
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.admin_services import peer_of
from tests.support.members import BILLINGS

ORIGIN, SENDER, UNKNOWN = FacilityId(b"o" * 32), FacilityId(b"s" * 32), FacilityId(b"u" * 32)
NAMES = {SENDER.digest: "Billings"}
UID = StudyInstanceUID("1.2.3")
MESSAGE_BYTES = 4 * 2**20
"""What stock clients of gRPC take."""

CONNECTED = PeerWay(
    ConnectionState.CONNECTED, Route.LAN, "10.0.0.1:7", 0.25, "", "emix 1", is_connected=True
)


# -- peers ----------------------------------------------------------------------------------------


def peer_message(peer: Peer, way: PeerWay, why_not: str = "", warning: str = "") -> pb.Peer:
    return wire.peer_to_wire(peer, way, why_not, 1234.9, warning)


def test_connected_peer_is_shown_with_the_way_to_it() -> None:
    peer = peer_of(BILLINGS, name="Billings (here)")
    found = peer_message(peer, CONNECTED, warning="looks like another")
    assert (found.facility_id, found.display_name) == (str(BILLINGS.facility), "Billings (here)")
    assert found.node_id == str(peer.identity.node_id)
    assert (found.state, found.route, found.endpoint) == ("connected", "lan", "10.0.0.1:7")
    assert (found.round_trip_milliseconds, found.bytes_a_second) == (250.0, 1234)
    assert (found.pinned_how, found.pinned_seconds, found.last_seen_seconds) == ("id", 1000, 2000)
    assert (found.problem, found.software) == ("", "emix 1")
    assert found.warning == "looks like another"


def test_removed_peer_is_only_removed_whatever_goes_on_with_its_connection() -> None:
    way = PeerWay(ConnectionState.CONNECTED, Route.LAN, "10.0.0.1:7", 0.1, "no answer", "emix 1")
    found = peer_message(peer_of(BILLINGS, removed=5.0), way, "its invitation was revoked")
    assert (found.state, found.route, found.problem, found.software) == ("removed", "", "", "")


def test_distrust_explains_a_peer_better_than_its_connection_does() -> None:
    way = PeerWay(ConnectionState.UNREACHABLE, problem="nothing listens there")
    assert peer_message(peer_of(BILLINGS), way, "revoked").problem == "revoked"
    assert peer_message(peer_of(BILLINGS), way).problem == "nothing listens there"


def test_peer_that_does_not_know_this_facility_is_shown_with_what_to_do_there() -> None:
    way = PeerWay(ConnectionState.UNREACHABLE, problem="it is not paired with this facility")
    assert "there: `emix peers pair`" in peer_message(peer_of(BILLINGS), way).problem


@pytest.mark.parametrize(
    ("tried", "named", "shown"),
    [("9.9.9.9:1", "h:5", "9.9.9.9:1"), ("", "h:5", "h:5"), ("", "", "h:1")],
)
def test_endpoint_is_that_in_use_or_that_a_person_named_or_that_the_peer_states(
    tried: str, named: str, shown: str
) -> None:
    peer = peer_of(BILLINGS, endpoint=named)  # which states h:1 itself
    assert peer_message(peer, PeerWay(endpoint=tried)).endpoint == shown


# -- transfers ------------------------------------------------------------------------------------


def test_transfer_is_shown_with_its_speed_and_why_it_waits() -> None:
    row = make_row(
        id=7,
        direction=Direction.RECEIVE,
        peer=SENDER,
        origin=ORIGIN,
        state=State.CARRYING,
        priority=Priority.STAT,
        bytes_total=100,
        bytes_done=40,
        bytes_carried=90,
        carried_seconds=4.0,
        plaintext_bytes=300,
        instances=3,
        recipient="Dr. Who",
        note="please read",
        created_time=10.9,
        updated_time=20.9,
        deleted_time=30.9,
        route="relay",
        reason="of the last try",
    )
    found = wire.transfer_to_wire(row, "Billings", 0.5, "why it waits")
    assert (found.number, found.transfer_id) == (7, "0" * 32)
    assert (found.direction, found.state, found.priority) == ("receive", "carrying", "stat")
    assert (found.peer, found.peer_name, found.origin) == (str(SENDER), "Billings", str(ORIGIN))
    assert (found.bytes_total, found.bytes_done, found.bytes_carried) == (100, 40, 90)
    assert (found.bytes_a_second, found.round_trip_milliseconds) == (22, 500.0)
    assert (found.instances, found.plaintext_bytes) == (3, 300)
    assert (found.recipient, found.note, found.route) == ("Dr. Who", "please read", "relay")
    times = (found.created_seconds, found.updated_seconds, found.deleted_seconds)
    assert times == (10, 20, 30)
    assert found.reason == "why it waits"
    assert not found.HasField("summary")


def test_offer_is_shown_with_whom_it_is_of() -> None:
    patients = (Patient("DOE^JANE", "P1", "19700101", "F"), Patient("ROE^JOHN"))
    row = make_row(summary=Summary(patients, UID, "20260102", "MR Knee", "MR  SR", "A1"))
    found = wire.transfer_to_wire(row, "", 0, "").summary
    assert [p.name for p in found.patients] == ["DOE^JANE", "ROE^JOHN"]
    first = found.patients[0]
    assert (first.patient_id, first.birth_date, first.sex) == ("P1", "19700101", "F")
    assert (found.study_instance_uid, found.study_date) == (UID, "20260102")
    assert (found.description, found.accession_number) == ("MR Knee", "A1")
    assert list(found.modalities) == ["MR", "SR"]


# -- studies --------------------------------------------------------------------------------------


def package(number: int = 0, **changes: Any) -> dict[str, object]:
    row: dict[str, object] = {
        "package_id": number.to_bytes(32, "big"),
        "instances": 2,
        "created_time": 10.9,
        "received_from": None,
        "sealed_bytes": 50,
        "received_time": None,
        "recipient": None,
        "note": None,
        "priority": None,
        "held": 0,
        "flagged": 0,
        "hold_reasons": [],
        "attachments_total": 0,
        "further": [],
    }
    return row | changes


def series(number: int) -> dict[str, str]:
    return {
        "SeriesInstanceUID": f"1.2.3.{number}",
        "SeriesNumber": str(number),
        "Modality": "CT",
        "SeriesDescription": "axial",
        "NumberOfSeriesRelatedInstances": "12",
    }


def study_messages(source: StudySource, *, is_pinned: bool = True) -> list[pb.Study]:
    return list(wire.study_to_wire(source, "St. Peter's", NAMES, is_pinned=is_pinned))


def test_study_is_shown_as_one_entry_with_all_that_is_known() -> None:
    source = StudySource(
        UID,
        ORIGIN,
        number=12,
        index={
            "patient_name": "DOE^JANE",
            "patient_id": "P1",
            "study_date": "20260102",
            "study_description": "CT Head",
            "modalities": "CT SR",
            "birth_date": "19700101",
            "sex": "F",
            "accession_number": "A1",
            "referring_physician": "WHO",
            "institution": "St. Peter's",
        },
        patients=[Patient("DOE^JANE")],
        unfinished_imports=[4],
        series_rows=[series(1)],
        series=1,
        instances=12,
        versioned_instances=2,
        plaintext_bytes=1000,
        sealed_bytes=400,
    )
    (found,) = study_messages(source)
    assert (found.study_instance_uid, found.number) == (UID, 12)
    assert (found.origin, found.origin_name) == (str(ORIGIN), "St. Peter's")
    assert found.origin_pinned
    assert (found.patient_name, found.patient_id, found.sex) == ("DOE^JANE", "P1", "F")
    assert (found.birth_date, found.study_date) == ("19700101", "20260102")
    assert (found.study_description, found.accession_number) == ("CT Head", "A1")
    assert (found.referring_physician, found.institution) == ("WHO", "St. Peter's")
    assert list(found.modalities) == ["CT", "SR"]
    assert (found.series, found.instances, found.versioned_instances) == (1, 12, 2)
    assert (found.plaintext_bytes, found.sealed_bytes) == (1000, 400)
    assert list(found.unfinished_imports) == [4]
    (one,) = found.series_entries
    assert (one.series_instance_uid, one.series_number, one.modality) == ("1.2.3.1", "1", "CT")
    assert (one.description, one.instances) == ("axial", 12)


def test_study_of_which_nothing_was_indexed_has_empty_values() -> None:
    (found,) = study_messages(StudySource(UID, ORIGIN), is_pinned=False)
    assert (found.patient_name, found.study_date, list(found.modalities)) == ("", "", [])
    assert not found.origin_pinned


@pytest.mark.parametrize(
    ("packages", "rows", "entries"),
    [(50, 200, 1), (51, 0, 2), (0, 201, 2), (120, 401, 3), (151, 10, 4)],
)
def test_study_of_very_many_parts_goes_on_in_further_entries(
    packages: int, rows: int, entries: int
) -> None:
    source = StudySource(
        UID,
        ORIGIN,
        index={"patient_name": "DOE^JANE"},
        series_rows=[series(n) for n in range(rows)],
        packages=[package(n, note="n" * 8000) for n in range(packages)],
        instances=99,
    )
    found = study_messages(source)
    assert len(found) == entries
    ids = [one.package_id for study in found for one in study.packages]
    assert len(set(ids)) == packages
    shown = [int(one.series_number) for study in found for one in study.series_entries]
    assert shown == list(range(rows))
    assert {(study.study_instance_uid, study.origin) for study in found} == {(UID, str(ORIGIN))}
    assert [study.instances for study in found] == [99] + [0] * (entries - 1)
    assert all(study.patient_name == "" for study in found[1:])
    assert max(study.ByteSize() for study in found) < MESSAGE_BYTES / 4


def test_study_of_very_many_patients_says_how_many_and_shows_the_first() -> None:
    source = StudySource(UID, ORIGIN, patients=[Patient(f"P^{n}") for n in range(100)])
    (found,) = study_messages(source)
    assert [patient.name for patient in found.patients] == [f"P^{n}" for n in range(20)]
    assert found.patients_total == 100


def test_study_says_who_has_it_and_who_deleted_it() -> None:
    sent = [SentTo(SENDER.digest, 10.9, 0.0, 12), SentTo(UNKNOWN.digest, 20.9, 30.9, 3)]
    (found,) = study_messages(StudySource(UID, ORIGIN, sent_to=sent))
    assert list(found.sent_to) == ["Billings", "?"]
    assert list(found.delivered_seconds) == [10, 20]
    assert list(found.deleted_seconds) == [0, 30]
    assert list(found.delivered_instances) == [12, 3]


def packages_of(*rows: dict[str, object]) -> list[pb.Package]:
    (found,) = study_messages(StudySource(UID, ORIGIN, packages=list(rows)))
    return list(found.packages)


def test_imported_package_has_no_sender_and_no_words_of_one() -> None:
    (found,) = packages_of(package(1))
    assert (found.received_from, found.received_seconds) == ("", 0)
    assert (found.recipient, found.note, found.priority) == ("", "", "")
    assert (found.instances, found.created_seconds, found.sealed_bytes) == (2, 10, 50)


def test_received_package_has_its_senders_name_and_words() -> None:
    received = {
        "received_from": SENDER.digest,
        "received_time": 77.9,
        "recipient": "Dr. Who",
        "note": "please read",
        "priority": 0,
        "held": 1,
        "flagged": 2,
        "hold_reasons": ["other patient"],
    }
    found, other = packages_of(
        package(1, **received), package(2, received_from=UNKNOWN.digest, priority=2)
    )
    assert (found.received_from, found.received_seconds) == ("Billings", 77)
    assert (found.recipient, found.note) == ("Dr. Who", "please read")
    assert (found.priority, other.priority) == ("stat", "routine")
    assert (found.held_instances, found.flagged_instances) == (1, 2)
    assert list(found.hold_reasons) == ["other patient"]
    assert other.received_from == "?"


def test_package_names_its_attachments_and_who_else_sent_it() -> None:
    class Attached:
        media_type, size_bytes, about = "application/pdf", 99, ("1.2.3.1",)

    further = {
        "peer": SENDER.digest,
        "received_time": 88.9,
        "recipient": "ER",
        "note": "again",
        "priority": 1,
    }
    (found,) = packages_of(
        package(1, attachments=[Attached()], attachments_total=5, further=[further])
    )
    (attached,) = found.attachments
    assert (attached.media_type, attached.size_bytes) == ("application/pdf", 99)
    assert list(attached.about_uids) == ["1.2.3.1"]
    assert found.attachments_total == 5
    (again,) = found.further_deliveries
    assert (again.sender, again.received_seconds, again.priority) == ("Billings", 88, "urgent")
    assert (again.recipient, again.note) == ("ER", "again")


# -- queries, imports, held instances -------------------------------------------------------------


def test_level_is_that_of_studies_unless_one_is_named() -> None:
    named = {text: wire.level_of(text) for text in ("", "study", "series", "image")}
    assert list(named.values()) == [Level.STUDY, Level.STUDY, Level.SERIES, Level.IMAGE]


@pytest.mark.parametrize("text", ["patient", "STUDY", "instance"])
def test_level_that_there_is_not_is_answered_with_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="a level is study, series or image"):
        wire.level_of(text)


def test_match_has_only_the_values_that_are_known() -> None:
    values = {"PatientName": "DOE^JANE", "StudyTime": ""}
    found = wire.match_to_wire(Found(UID, ORIGIN, 12, values))
    assert dict(found.values) == {"PatientName": "DOE^JANE"}
    assert (found.study_instance_uid, found.origin, found.number) == (UID, str(ORIGIN), 12)


def test_unfinished_import_counts_all_studies_and_names_the_first() -> None:
    patients = [Patient(f"P^{n}") for n in range(30)]
    studies = [PartialStudy(f"1.2.{n}", patients, 3, 100) for n in range(50)]
    unfinished = UnfinishedImport(8, ("/media/cd",), "uid 5 (bob)", 10.9, "disk full", studies)
    found = wire.import_to_wire(unfinished, is_running=True)
    assert (found.number, list(found.sources)) == (8, ["/media/cd"])
    assert (found.operator, found.begun_seconds) == ("uid 5 (bob)", 10)
    assert (found.problem, found.is_running) == ("disk full", True)
    assert [one.study_instance_uid for one in found.studies] == [f"1.2.{n}" for n in range(20)]
    assert len(found.studies[0].patients) == 20
    assert (found.studies_total, found.instances, found.sealed_bytes) == (50, 150, 5000)
    assert not wire.import_to_wire(unfinished, is_running=False).is_running


def held(sender: FacilityId | None, label: str = "") -> HeldInstance:
    return HeldInstance(9, 1, 0, ("other patient", "flag"), label, 10.9, 512, "1.4", UID, sender)


def test_held_instance_is_named_by_its_file_or_its_sender() -> None:
    found = wire.held_to_wire(held(None, "/cd/IM1"), NAMES)
    assert (found.label, found.received_from) == ("/cd/IM1", "")
    assert (found.held_id, found.size_bytes, found.held_seconds) == (9, 512, 10)
    assert list(found.reasons) == ["other patient", "flag"]
    assert (found.sop_instance_uid, found.study_instance_uid) == ("1.4", UID)
    assert wire.held_to_wire(held(SENDER), NAMES).received_from == "Billings"
    assert wire.held_to_wire(held(UNKNOWN), NAMES).received_from == str(UNKNOWN)
