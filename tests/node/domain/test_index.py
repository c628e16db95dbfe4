"""What a package is found by: the first word counts, and there is an end of words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.index import (
    MOST_KEPT_PATIENTS,
    MOST_SERIES,
    ImageIndex,
    ImageIndexes,
    PackageIndex,
)
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


@given(st.text())
def test_number_of_an_instance_is_a_number_or_nothing(text: str) -> None:
    image = ImageIndex.of({"InstanceNumber": text, "Rows": text})
    assert image.instance_number is None or -(2**31) <= image.instance_number < 2**31
    images = ImageIndexes(2)
    images.put(1, image)
    assert images.get(1, ImageIndex()) == image
    assert images.get(0, ImageIndex()) == images.get(2, ImageIndex()) == ImageIndex()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("+5", 5),
        ("-5", -5),
        ("-+5", None),
        ("", None),
        ("5.0", None),
        ("٣", None),
        (str(2**31), None),
        (str(-(2**31)), -(2**31)),
        ("9" * 300, None),
    ],
)
def test_number_of_an_instance_is_read_as_it_is_written(text: str, number: int | None) -> None:
    assert ImageIndex.of({"InstanceNumber": text}).instance_number == number
