from dataclasses import replace

import pytest

from node.codec.regions import Encoded, Form, Group, Region, read, write
from node.errors import ChunkDamaged

GROUP = Group(Form.ROWS, 2, 1, 16, 400)
PLAIN = Group(Form.PLAIN, 1, 1, 0, 10)
ENCODED = Encoded(
    [PLAIN, GROUP], [Region(0, 4), Region(1, 400), Region(0, 6)], [[b"0123456789"], [b"a", b"bc"]]
)


def test_what_was_written_is_read() -> None:
    found = read(write(ENCODED), 410)
    assert (found.groups, found.regions) == (ENCODED.groups, ENCODED.regions)
    assert [[bytes(plane) for plane in planes] for planes in found.planes] == ENCODED.planes


@pytest.mark.parametrize(
    "group",
    [
        replace(GROUP, row=0),
        replace(GROUP, row=15),
        replace(GROUP, row=200),
        replace(GROUP, sample_bytes=3),
        replace(GROUP, samples=3),
        replace(GROUP, form=Form.GREEN, row=0),
        replace(GROUP, form=Form.PLAIN),
        replace(GROUP, form=Form.COLOURS, row=0, samples=3),  # 400 bytes are no whole pixels
        replace(GROUP, sample_bytes=8, form=Form.PLAIN, row=0, plaintext_bytes=399),
        replace(GROUP, plaintext_bytes=0),
        replace(GROUP, plaintext_bytes=402),
    ],
)
def test_impossible_groups_are_refused(group: Group) -> None:
    with pytest.raises(ChunkDamaged):
        read(write(replace(ENCODED, groups=[PLAIN, group])), 410)


@pytest.mark.parametrize(
    "regions",
    [
        [],
        [Region(0, 10)],
        [Region(0, 10), Region(1, 399)],
        [Region(0, 10), Region(1, 400), Region(1, 0)],
        [Region(0, 10), Region(2, 400)],
    ],
)
def test_regions_that_do_not_fit_their_groups_are_refused(regions: list[Region]) -> None:
    with pytest.raises(ChunkDamaged):
        read(write(replace(ENCODED, regions=regions)), 410)


SCAN = replace(
    ENCODED, groups=[PLAIN, Group(Form.JPEG_LS, 2, 1, 16, 400)], planes=[[b"0123456789"], [b"a"]]
)


def test_jpeg_ls_is_of_its_own_codec_alone() -> None:
    found = read(write(SCAN), 410, has_jpeg_ls=True)
    assert found.groups == SCAN.groups
    assert found.groups[1].rows == 13
    assert [bytes(plane) for plane in found.planes[1]] == [b"a"]
    with pytest.raises(ChunkDamaged, match="a form that its codec has not"):
        read(write(SCAN), 410)


@pytest.mark.parametrize(
    "group",
    [
        replace(SCAN.groups[1], row=0),
        replace(SCAN.groups[1], row=15),
        replace(SCAN.groups[1], row=2**16),
        replace(SCAN.groups[1], sample_bytes=4),
        replace(SCAN.groups[1], form=Form.JPEG_LS | Form.ROWS),
        replace(SCAN.groups[1], form=Form.JPEG_LS | Form.GREEN),
        replace(SCAN.groups[1], form=Form(16)),
    ],
)
def test_impossible_groups_of_jpeg_ls_are_refused(group: Group) -> None:
    planes = [[b"0123456789"], [b"a"] * group.planes]
    with pytest.raises(ChunkDamaged, match="malformed"):
        read(write(replace(SCAN, groups=[PLAIN, group], planes=planes)), 410, has_jpeg_ls=True)


def test_more_rows_than_a_frame_has_are_refused() -> None:
    group = Group(Form.JPEG_LS, 1, 1, 16, 16 * 2**16)
    encoded = Encoded([group], [Region(0, group.plaintext_bytes)], [[b"a"]])
    with pytest.raises(ChunkDamaged, match="malformed"):
        read(write(encoded), group.plaintext_bytes, has_jpeg_ls=True)


def test_every_cut_and_every_addition_is_refused() -> None:
    data = write(ENCODED)
    for length in range(len(data)):
        with pytest.raises(ChunkDamaged):
            read(data[:length], 410)
    with pytest.raises(ChunkDamaged):
        read(data + b"\0", 410)
