import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.ids import ChunkId, FacilityId, TransferId

digests = st.binary(min_size=32, max_size=32)


@given(digests)
def test_facility_id_text_parses_back(digest: bytes) -> None:
    facility = FacilityId(digest)
    assert FacilityId.parse(str(facility)) == facility
    assert FacilityId.parse(str(facility).lower().replace("-", " ")) == facility


@given(digests, st.integers(0, 55), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_facility_id_with_one_wrong_character_is_refused(
    digest: bytes, place: int, letter: str
) -> None:
    text = str(FacilityId(digest)).replace("-", "")
    wrong = text[:place] + letter + text[place + 1 :]
    if wrong != text:
        with pytest.raises(ValueError, match="typing error"):
            FacilityId.parse(wrong)


@given(digests)
def test_chunk_id_text_parses_back(digest: bytes) -> None:
    assert ChunkId.parse(str(ChunkId(digest))) == ChunkId(digest)


@pytest.mark.parametrize("text", ["", "a", "a" * 51, "a" * 53, "!" * 52, "../../etc/passwd"])
def test_chunk_id_of_other_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a ChunkId"):
        ChunkId.parse(text)


def test_chunk_id_with_stray_bits_is_refused() -> None:
    """One id has one spelling: the last character's unused bits must be zero."""
    text = str(ChunkId(b"\0" * 32))
    with pytest.raises(ValueError, match="not a ChunkId"):
        ChunkId.parse(text[:-1] + "b")


def test_ids_of_two_kinds_are_never_equal() -> None:
    assert ChunkId(b"\1" * 32) != FacilityId(b"\1" * 32)  # type: ignore[comparison-overlap]


def test_transfer_ids_are_new_each_time() -> None:
    assert len({TransferId.new() for _ in range(100)}) == 100
