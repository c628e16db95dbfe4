import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.domain.ids import ChunkId, FacilityId, TransferId, _unbase32

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


@given(
    st.binary(max_size=40).map(lambda data: base64.b32encode(data).decode())
    | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", max_size=60)
    | st.text(max_size=20)
)
@example("A_A")
@example(" A")
@example("+7")
@example("AA=A")
@example("\N{ARABIC-INDIC DIGIT SEVEN}A")
def test_base32_is_taken_as_python_takes_it(text: str) -> None:
    unpadded = text.rstrip("=")
    try:
        expected = base64.b32decode(unpadded + "=" * (-len(unpadded) % 8))
        is_canonical = base64.b32encode(expected).decode().rstrip("=") == unpadded
    except ValueError:
        is_canonical = False
    if is_canonical and unpadded:
        assert _unbase32(unpadded) == expected
    else:
        with pytest.raises(ValueError, match="base32"):
            _unbase32(unpadded)


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
