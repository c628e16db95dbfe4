"""Text that editors of other systems wrote, and text that is shown."""

import codecs

import pytest

from node.domain.display_text import plain_text

TEXT = "Zürich, größer\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
)
def test_text_is_read_as_its_mark_says(data: bytes) -> None:
    assert plain_text(data) == TEXT


@pytest.mark.parametrize("data", [b"\xff", codecs.BOM_UTF16_LE + b"x", b"\xe4"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="codec can't decode"):
        plain_text(data)
