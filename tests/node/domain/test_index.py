"""What a package is found by: the first word counts, and there is an end of words."""

from node.domain.index import MOST_KEPT_PATIENTS, MOST_SERIES, PackageIndex
from node.domain.patients import Patient


def test_first_word_is_kept_and_modalities_add() -> None:
    index = PackageIndex.of(
        [
            {"PatientName": "Doe^Jo", "Modality": "CT", "StudyDescription": ""},
            {"PatientName": "Doe^J", "Modality": "SR", "StudyDescription": "Knee"},
        ]
    )
    assert index.study == {"PatientName": "Doe^Jo", "StudyDescription": "Knee"}
    assert index.modalities == {"CT", "SR"}
    assert list(index.patients) == [Patient("Doe^Jo"), Patient("Doe^J")]


def test_series_are_filled_in_by_later_instances() -> None:
    first = {"SeriesInstanceUID": "1.2", "Modality": "CT"}
    index = PackageIndex.of([first, {**first, "Modality": "MR", "SeriesDescription": "Thorax"}])
    assert index.series == {"1.2": {"Modality": "CT", "SeriesDescription": "Thorax"}}


def test_merging_parts_gives_what_all_instances_give() -> None:
    instances = [
        {"PatientName": f"N{n % 7}", "SeriesInstanceUID": f"1.{n % 5}", "Modality": f"M{n % 3}"}
        for n in range(40)
    ]
    merged = PackageIndex.of(instances[:15])
    merged.merge(PackageIndex.of(instances[15:]))
    assert merged == PackageIndex.of(instances)


def test_what_is_kept_has_a_bound() -> None:
    index = PackageIndex.of(
        {
            "PatientName": f"N{n}",
            "Modality": f"M{n} X{n}",
            "SeriesInstanceUID": f"1.{n}",
            "SeriesDescription": "d" * 256,
        }
        for n in range(MOST_SERIES + 1000)
    )
    assert len(index.patients) == MOST_KEPT_PATIENTS
    assert len(index.series) == MOST_SERIES
    assert len(index.modalities) == 32
    assert max(len(values["SeriesDescription"]) for values in index.series.values()) == 64
