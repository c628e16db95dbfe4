"""Reading archives in a process of their own: every member, in order, within bounds."""

import gzip
import io
import os
import time
import zipfile
from pathlib import Path

import pytest

from node.dicom import archive_reader, archive_worker, archives
from node.dicom.archive_kinds import HEAD_BYTES, Kind, kind_of
from node.dicom.archive_reader import Unreadable
from node.dicom.archives import Budget, find_members
from node.dicom.media import find_files
from tests.node.dicom.archives import claiming, deflate64, imaged, tarred, zipped

CONTENT = {f"FOLDER/IM{n}": os.urandom(1000 * n) for n in (1, 2, 3)}


def read_all(path: Path) -> dict[str, bytes | str]:
    """Return the content of each file in an archive, or what is wrong with it, by label."""
    found: dict[str, bytes | str] = {}
    (file,) = find_files(path)
    with file.members() as members:
        for member in members:
            try:
                content = b"".join(iter(member.read, b""))
                found[member.label.removeprefix(str(path))] = member.problem or content
            except Unreadable as exc:
                found[member.label.removeprefix(str(path))] = str(exc)
    return found


@pytest.mark.parametrize(
    "made",
    [
        zipped(CONTENT),
        zipped(CONTENT, zipfile.ZIP_STORED),
        tarred(CONTENT),
        tarred(CONTENT, is_packed=True),
        imaged(CONTENT),
        imaged(CONTENT, joliet=True),
        imaged(CONTENT, udf=True),
        zipped({"x": zipped(CONTENT)}),
        zipped({"x": tarred(CONTENT, is_packed=True)}),
        zipped({"x": imaged(CONTENT, joliet=True)}),
        tarred({"x": zipped(CONTENT)}, is_packed=True),
        imaged({"X": zipped(CONTENT)}),
    ],
    ids=lambda _: "",
)
def test_every_file_comes_out_as_it_went_in(made: bytes, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(made)
    found = {label.rpartition("!")[2]: content for label, content in read_all(path).items()}
    assert found == CONTENT


def test_gzip_file_is_called_like_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm.gz"
    path.write_bytes(gzip.compress(b"content"))
    (file,) = find_files(path)
    with file.members() as members:
        assert [(m.label, m.read()) for m in members] == [(str(tmp_path / "image.dcm"), b"content")]


def test_dicomdir_comes_before_what_it_names(tmp_path: Path) -> None:
    content = {"A/IM1": b"1", "DICOMDIR": b"2", "B/IM1": b"3"}
    for made in (zipped(content), imaged(content)):
        (tmp_path / "archive").write_bytes(made)
        assert next(iter(read_all(tmp_path / "archive"))) == "!DICOMDIR"


def test_archives_in_archives_in_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"b.zip": zipped({"c.zip": zipped(CONTENT), "d": b"d"})}))
    assert read_all(path) == {
        "!b.zip!c.zip": "an archive inside an archive inside an archive; unpack it first",
        "!b.zip!d": b"d",
    }


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7-Zip archive; unpack it first"),
        (b"Rar!\x1a\7\1\0", "a RAR archive; unpack it first"),
        (b"BZh9", "a bzip2 file; unpack it first"),
        (b"\xfd7zXZ\0", "an xz file; unpack it first"),
    ],
)
def test_what_is_not_read_is_called_what_it_is(start: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(start + bytes(400))
    assert [file.problem for file in find_files(tmp_path)] == [what]
    (tmp_path / "plain").write_bytes(zipped({"inside": start + bytes(400)}))
    assert list(read_all(tmp_path / "plain").values()) == [what]


def test_dicom_file_that_begins_like_an_archive_is_none(tmp_path: Path) -> None:
    assert kind_of(b"PK\3\4".ljust(128, b"\0") + b"DICM") is None


def damaged(made: bytes) -> bytes:
    """Return an archive whose middle is overwritten."""
    middle = len(made) // 2
    return made[:middle] + bytes(200) + made[middle + 200 :]


@pytest.mark.parametrize(
    "made",
    [
        damaged(zipped(CONTENT)),
        damaged(tarred(CONTENT, is_packed=True)),
        zipped(CONTENT)[:-100],
        tarred(CONTENT)[:-3000],
        imaged(CONTENT)[:40_000],
        imaged(CONTENT)[:52_000],
        gzip.compress(b"x" * 10_000)[:-10],
        b"PK\3\4" + bytes(100),
        b"\x1f\x8b" + bytes(100),
    ],
    ids=lambda _: "",
)
def test_damaged_archive_gives_what_is_sound_and_says_so(made: bytes, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(made)
    said = []
    try:
        found = read_all(path)
    except Unreadable as exc:
        found, said = {}, [str(exc)]
    said += [content for content in found.values() if isinstance(content, str)]
    assert said
    assert all("damaged" in one or "read to its end" in one for one in said)
    sound = {n.rpartition("!")[2]: c for n, c in found.items() if isinstance(c, bytes)}
    assert sound.items() <= CONTENT.items()


def test_packed_tar_with_a_wrong_checksum_is_damaged(tmp_path: Path) -> None:
    """It stands at the end: what came out may be damaged too, so it is said of all of it."""
    made = bytearray(gzip.compress(tarred(CONTENT)))
    made[-6] ^= 1
    (tmp_path / "archive").write_bytes(made)
    with pytest.raises(Unreadable, match="damaged gzip file"):
        read_all(tmp_path / "archive")


def with_damage(made: bytes, start: int, damage: bytes) -> bytes:
    """Return an archive in which some bytes are others."""
    return made[:start] + damage + made[start + len(damage) :]


TEN = {f"IM{n}": os.urandom(700) for n in range(10)}
TAR = tarred(TEN)
THIRD = 3 * (512 + 1024)  # where the header of the fourth file is


@pytest.mark.parametrize(
    ("made", "sound"),
    [
        (with_damage(TAR, THIRD + 5, b"\xff"), 3),
        (with_damage(TAR, THIRD, bytes(512)), 3),
        (TAR[:THIRD], 3),
        (TAR[: THIRD + 100], 3),
        (TAR[: 10 * (512 + 1024)], 10),
        (TAR + TAR, 10),
    ],
    ids=["flipped", "zeroed", "cut-between", "cut-inside", "without-its-end", "more-behind"],
)
@pytest.mark.parametrize("how", ["plain", "packed", "inside"])
def test_tar_that_is_not_all_there_says_so(
    made: bytes, sound: int, how: str, tmp_path: Path
) -> None:
    """What tarfile takes for the end is the end only where that is marked."""
    path = tmp_path / "archive"
    path.write_bytes(made if how == "plain" else gzip.compress(made))
    if how == "inside":
        path.write_bytes(zipped({"x": made, "y": b"y"}))
    found: dict[str, bytes | str] = {}
    problem = ""
    with next(find_files(path)).members() as members:
        try:
            for member in members:
                found[member.label] = member.problem or b"".join(iter(member.read, b""))
        except Unreadable as exc:
            problem = str(exc)
    if how == "inside":
        problem = str(found.pop(f"{path}!x"))
        assert found.pop(f"{path}!y") == b"y"
    assert "damaged or truncated; entries before" in problem
    assert list(found.values()) == list(TEN.values())[:sound]


@pytest.mark.parametrize("joliet", [False, True])
def test_disc_image_that_ends_inside_a_file_says_so(joliet: bool, tmp_path: Path) -> None:
    """What pycdlib calls the size of such a file is what is left of it."""
    content = {"IM1": os.urandom(5000), "IM2": os.urandom(5000)}
    made = imaged(content, joliet=joliet)
    path = tmp_path / "archive"
    path.write_bytes(made[: made.index(content["IM2"]) + 4096])
    found = read_all(path)
    assert "damaged" in str(found["!IM2"])
    assert found["!IM1"] == content["IM1"]


def test_tar_may_end_in_any_number_of_zeros(tmp_path: Path) -> None:
    ends = TAR[: 10 * (512 + 1024)]
    for zeros in (512, 1024, 3_000_000):
        (tmp_path / "archive").write_bytes(ends + bytes(zeros))
        assert len(read_all(tmp_path / "archive")) == 10


@pytest.mark.parametrize("is_inside", [False, True])
def test_zip_whose_directory_has_not_all_of_it_says_so(is_inside: bool, tmp_path: Path) -> None:
    made = zipped(TEN)
    place = made.index(b"PK\1\2")
    second = made.index(b"PK\1\2", place + 1)
    end = made.index(b"PK\5\6")
    broken = [
        # The first entry is left out, and nine of ten are called all there is.
        made[:end] + made[end:][:12] + (end - second).to_bytes(4, "little")
        + second.to_bytes(4, "little") + made[end:][20:],
        # The directory is called empty.
        made[:end] + b"PK\5\6" + bytes(18),
    ]  # fmt: skip
    for number, one in enumerate(broken):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(zipped({"x": one}) if is_inside else one)
        if is_inside:
            assert "damaged" in str(read_all(path)["!x"])
            continue
        with pytest.raises(Unreadable, match="damaged"):
            read_all(path)


def test_packed_tar_of_many_is_read_forwards_once(tmp_path: Path) -> None:
    names = {f"{n:04d}": bytes(1000) for n in range(3000)}
    (tmp_path / "archive").write_bytes(tarred(names, is_packed=True))
    begun = time.monotonic()
    assert len(read_all(tmp_path / "archive")) == 3000
    assert time.monotonic() - begun < 20  # *measured*: 0.7; going back each time, 60


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_expand_without_a_bound_are_not_opened(tmp_path: Path, method: int) -> None:
    path = tmp_path / "bomb.zip"
    path.write_bytes(zipped({"bomb.dcm": bytes(10_000_000)}, method))
    (problem,) = read_all(path).values()
    assert "compressed by a method that is not supported" in str(problem)


def test_what_a_zip_hides_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(deflate64({"IM1": b"content"}))
    assert "7-Zip" in str(read_all(tmp_path / "a.zip")["!IM1"])
    made = bytearray(zipped({"IM1": b"content"}))
    made[6] |= 1
    made[made.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(made)
    assert "password" in str(read_all(tmp_path / "a.zip")["!IM1"])


def test_honest_archive_of_many_black_images_is_read(tmp_path: Path) -> None:
    """Nearly a thousand to one in each of them."""
    path = tmp_path / "black.zip"
    path.write_bytes(zipped({f"{n}.dcm": bytes(5_000_000) for n in range(10)}))
    assert [len(content) for content in read_all(path).values()] == [5_000_000] * 10


def test_what_an_archive_expands_to_is_bounded() -> None:
    """By 4 GiB, or two hundred times its size, whichever is more."""
    small, large = Budget(10 * 2**20), Budget(100 * 2**30)
    small.take(4 * 2**30)
    large.take(20_000 * 2**30)
    for budget, more in ((small, 100 * 2**20), (large, 100 * 2**20)):
        with pytest.raises(archives.Unreadable, match="beyond all measure"):
            budget.take(more)


@pytest.mark.parametrize("how", ["drained", "sought"])
def test_what_is_passed_over_counts_too(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the end of a tar, up to the next file in it, to the end of a ZIP in a gzip file."""
    monkeypatch.setattr(archives, "_FREE_BYTES", 1 << 16)
    plain = zipped({"x": b"x"}) if how == "sought" else tarred({"x": b"x"})
    plain = bytes(30 * 2**20) + plain if how == "sought" else plain + bytes(30 * 2**20)
    made = gzip.compress(plain) if how == "drained" else zipped({"x": zipped({}) + plain})
    kind = Kind.GZIP if how == "drained" else Kind.ZIP
    assert list(find_members(io.BytesIO(made), kind, Budget(len(made))))
    said = []
    try:
        found = find_members(io.BytesIO(made), kind, Budget(len(made) // 100))
        said = [member.problem for member in found]
    except archives.Unreadable as exc:
        said = [str(exc)]
    assert "beyond all measure" in said[-1]


def test_names_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_NAMES_BYTES", 4 * 4096)
    many = {f"{n}".zfill(9000): b"x" for n in range(5)}
    inside = {"x" * 9000: zipped({str(n): b"x" for n in range(5)})}
    for made in (many, inside):
        with pytest.raises(archives.Unreadable, match="names are too long"):
            list(find_members(io.BytesIO(zipped(made)), Kind.ZIP, Budget(1000)))


def test_time_for_an_archive_is_bounded_whatever_its_size() -> None:
    assert 20 <= archive_worker.seconds_for(300) < 21
    assert archive_worker.seconds_for(700 * 2**20) == 720
    assert archive_worker.seconds_for(2**62) == 3600


def test_process_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "_SILENT_SECONDS", 0.05)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as output, os.fdopen(writing, "wb", 0) as silent:
        stream = archive_reader._patient(output)
        silent.write(b'{"name": "x", "size": 1, "problem": "y"}\n')
        files = archive_reader._files(stream, "archive")
        assert next(files).problem == "y"
        with pytest.raises(Unreadable, match="read to its end"):
            next(files)


def test_number_of_members_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    for made, kind in ((zipped, Kind.ZIP), (tarred, Kind.TAR)):
        handle = io.BytesIO(made({str(n): b"x" for n in range(6)}))
        with pytest.raises(archives.Unreadable, match="too many entries"):
            list(find_members(handle, kind, Budget(1000)))


def test_absurd_size_is_not_believed_and_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(claiming({"a": 2**63 - 1, "b": 2**64 - 1, "c": 2**40}))
    (file,) = find_files(path)
    with file.members() as members:
        found = [(m.size_bytes, "encrypted" in m.problem) for m in members]
    assert found == [(0, True), (0, True), (2**40, True)]


def test_members_nobody_reads_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(CONTENT))
    (file,) = find_files(path)
    with file.members() as members:
        assert [member.size_bytes for member in members] == [1000, 2000, 3000]


def test_archive_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({str(n): os.urandom(5_000_000) for n in range(3)}))
    (file,) = find_files(path)
    with file.members() as members:
        next(members).read()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        assert children
    assert not set(children) & set(
        Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    )


def test_disc_image_is_told_by_its_seventeenth_sector() -> None:
    made = imaged(CONTENT)
    assert kind_of(made[:HEAD_BYTES]) is Kind.ISO
    assert kind_of(made[: HEAD_BYTES - 1]) is None


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"junk\n",
        b"[]\n",
        b'{"name": "x", "size": -1, "problem": ""}\n',
        b'{"name": "x", "size": "1", "problem": ""}\n',
        b'{"name": "x", "size": true, "problem": ""}\n',
        b'{"name": "x", "size": 4398046511105, "problem": ""}\n',
        b'{"name": "x", "size": 1, "problem": ""}\n' + (1 << 24).to_bytes(4, "big"),
        b'{"name": "x", "size": 1, "problem": ""}\n' + (9).to_bytes(4, "big") + b"short",
        b'{"name": "' + b"x" * 100_000 + b'", "size": 1, "problem": ""}\n',
        b'{"name": "x", "size": 1, "problem": ""}\n' + bytes(4) + b"no line",
    ],
    ids=lambda _: "",
)
def test_what_a_process_that_was_taken_over_says_is_bounded(said: bytes) -> None:
    def read() -> None:
        for file in archive_reader._files(io.BytesIO(said), "archive"):
            while file.read():
                pass

    with pytest.raises(Unreadable, match="read to its end"):
        read()


def test_process_that_reads_an_archive_is_confined(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({str(n): os.urandom(5_000_000) for n in range(3)}))
    (file,) = find_files(path)
    with file.members() as members:
        next(members).read()  # it has begun, so it has given up what it does not need
        (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        status = Path(f"/proc/{child}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
