"""More than a million changed streams of codecs."""

from collections.abc import Callable

import pytest

from node.codec.kinds import Codec
from tests.node.dicom.test_expanding import expand_changed

pytestmark = pytest.mark.torture

COUNT = 400_000
"""Of each codec that can be changed."""


@pytest.mark.parametrize("codec", [Codec.SHUFFLED, Codec.REGIONS, Codec.SMALL])
async def test_changed_streams_are_errors_of_their_chunks(
    codec: Codec, report: Callable[[str], None]
) -> None:
    failed, slowest, peak = await expand_changed(codec, COUNT, seed=2026)
    report(
        f"{COUNT:,} changed streams of codec {codec.name.lower()}: {failed:,} errors of one chunk,"
        f" the others expand to what their size says; the slowest took {slowest:.2f} s,"
        f" the parser {peak:.0f} MiB at most and never ended"
    )
    assert slowest < 5
    assert peak < 150
