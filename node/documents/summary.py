"""The summary in a delivery, sealed: only a holder of the package's data key can read it.

A delivery is shown to third parties as part of a proof, so the patient data in it is sealed.
"""

from emix.documents.v1 import documents_pb2 as pb

from node.crypto.keys import DataKey
from node.crypto.sealing import OpenFailed, open_small, seal_small
from node.documents.bodies import parse_body
from node.domain.ids import TransferId
from node.domain.patients import Patient
from node.domain.summary import Summary
from node.errors import BadDelivery

MAX_SEALED_BYTES = 8 * 1024
_KIND = "emix/summary/v1"


def seal_summary(summary: Summary, key: DataKey, transfer_id: TransferId) -> bytes:
    """Return a summary as it stands in the delivery of one transfer."""
    of = summary.bounded()
    wire = pb.Summary(
        patients=[
            pb.SummaryPatient(
                name=p.name, patient_id=p.patient_id, birth_date=p.birth_date, sex=p.sex
            )
            for p in of.patients
        ],
        study_instance_uid=of.study_uid,
        study_date=of.study_date,
        description=of.description,
        modalities=of.modalities,
        accession_number=of.accession_number,
    )
    return seal_small(key.summary_keys(), _KIND, transfer_id.value, wire.SerializeToString())


def open_summary(sealed: bytes, key: DataKey, transfer_id: TransferId) -> Summary | None:
    """Return the summary that a sender sealed; None if the delivery has none.

    Raises:
        BadDelivery: it does not open, or is malformed.
    """
    if not sealed:
        return None
    try:
        encoded = open_small(key.summary_keys(), _KIND, transfer_id.value, sealed)
    except OpenFailed as exc:
        raise BadDelivery("the delivery's summary does not open") from exc
    wire = parse_body(pb.Summary, encoded, "delivery's summary", BadDelivery)
    return Summary(
        tuple(Patient(p.name, p.patient_id, p.birth_date, p.sex) for p in wire.patients),
        wire.study_instance_uid,
        wire.study_date,
        wire.description,
        wire.modalities,
        wire.accession_number,
    ).bounded()
