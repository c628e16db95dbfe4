"""Odd media: discs, folders and archives as people hand them over."""

import gzip
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.fileset import FileSet

from tests.cases import Case, Right, put
from tests.cases.encoding import (
    EXPLICIT,
    MEDIA_DIRECTORY,
    directory,
    element,
    file_meta,
    image,
    item,
    made_uid,
    part10,
    without_item,
)
from tests.node.dicom.archives import deflate64, imaged, tarred, zipped

CASES: list[Case] = []


def _case(
    kind: str, reported: str, right: Right
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def note(make: Callable[[Path], None]) -> Callable[[Path], None]:
        name = make.__name__.strip("_").replace("_", "-")
        CASES.append(Case(name, kind, reported, right, make))
        return make

    return note


def _images(case: str, count: int) -> list[bytes]:
    return [part10(image(case, number)) for number in range(1, count + 1)]


def _write_disc(folder: Path, case: str, count: int) -> None:
    """Write images with a DICOMDIR, as discs have them."""
    file_set = FileSet()
    for content in _images(case, count):
        file_set.add(pydicom.dcmread(io.BytesIO(content)))
    with tempfile.TemporaryDirectory() as made:
        file_set.write(Path(made) / "disc")
        shutil.copytree(Path(made) / "disc", folder, dirs_exist_ok=True)


# -- discs --------------------------------------------------------------------------------------


@_case(
    "a DICOMDIR in upper case, its files in lower case and with a suffix",
    "dcm4che #946, Weasis #190, #272, #388, dicomviewer #15",
    Right(carried=3, directories=1),
)
def _disc_copied_in_lower_case(folder: Path) -> None:
    _write_disc(folder, "disc copied in lower case", 3)
    for path in sorted(folder.rglob("*"), key=lambda p: -len(p.parts)):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower() + (".dcm" if path.is_file() else "")))


@_case(
    "a DICOMDIR that names a file which is not there",
    "Weasis #911",
    Right(carried=2, directories=1, missing=1),
)
def _half_a_disc(folder: Path) -> None:
    _write_disc(folder, "half a disc", 3)
    max(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR").unlink()


@_case(
    "a usual disc: viewer, autorun, pictures, what file managers leave",
    "dicomviewer #15, leaddbs #870, Weasis #247, darktable #11225",
    Right(carried=4, not_dicom=51),
)
def _disc_with_a_viewer(folder: Path) -> None:
    for number, content in enumerate(_images("disc with a viewer", 4), 1):
        put(folder / "DICOM" / f"IM{number:06d}", content)
    others = {
        "AUTORUN.INF": b"[autorun]\r\nopen=viewer\\start.exe\r\n",
        "VIEWER/START.EXE": b"MZ" + bytes(4000),
        "VIEWER/LIB.DLL": b"MZ" + bytes(3000),
        "VIEWER/HELP.CHM": b"ITSF" + bytes(500),
        "README.TXT": b"Please see the viewer.\r\n",
        "INDEX.HTM": b"<html></html>",
        "JPG/IM1.JPG": b"\xff\xd8\xff\xe0" + bytes(900),
        "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(600),
        ".DS_Store": b"\0\0\0\1Bud1" + bytes(6000),
        "DICOM/._IM000001": b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(4000),
        "REPORT.PDF": b"%PDF-1.4\n" + bytes(800),
    } | {f"VIEWER/ICON{number:02d}.GIF": b"GIF89a" + bytes(50) for number in range(40)}
    for name, content in others.items():
        put(folder / name, content)


@_case(
    "a DICOMDIR that is damaged in its middle",
    "scratched discs",
    Right(carried=2, refused=1, missing=1, words=("the files that it references are unknown",)),
)
def _damaged_dicomdir(folder: Path) -> None:
    names = [f"IM{number}" for number in range(1, 9)]
    put(folder / "DICOMDIR", without_item(directory(names), 4))
    for number, content in enumerate(_images("damaged DICOMDIR", 2), 1):
        put(folder / f"IM{number}", content)


@_case(
    "a DICOMDIR of more than 4 MiB that names files of other discs",
    "pydicom #1597",
    Right(carried=1, directories=1, missing=24_000),
)
def _large_dicomdir(folder: Path) -> None:
    records = b"".join(
        item(
            element(0x00041430, "CS", "IMAGE")
            + element(0x00041500, "CS", f"DICOM\\IM{number:06d}")
            + element(0x00041511, "UI", made_uid("large DICOMDIR", number))
            + element(0x00081030, "LO", "x" * 60)
        )
        for number in range(24_000)
    )
    body = element(0x00041130, "CS", "DISC") + element(0x00041220, "SQ", records)
    meta = file_meta(EXPLICIT, MEDIA_DIRECTORY, made_uid("large DICOMDIR"))
    put(folder / "DICOMDIR", bytes(128) + b"DICM" + meta + body)
    put(folder / "IM1", part10(image("large DICOMDIR")))


@_case(
    "several patients and studies on one disc",
    "Mayo Clinic 2011, doi 10.1007/s10278-011-9364-3",
    Right(carried=6),
)
def _several_patients(folder: Path) -> None:
    number = 0
    for patient, study in (("ALPHA^A", 1), ("ALPHA^A", 2), ("BETA^B", 1)):
        for _ in range(2):
            number += 1
            identity = {
                0x00100010: ("PN", patient),
                0x00100020: ("LO", patient[:5]),
                0x0020000D: ("UI", made_uid("several patients", patient, study)),
                0x0020000E: ("UI", made_uid("several patients", patient, study, "series")),
            }
            content = part10(image("several patients", number) | identity)
            put(folder / f"IM{number}", content)


# -- folders ------------------------------------------------------------------------------------


@_case(
    "the path that is named is a link, as /media/cdrom is",
    "vtk-dicom #104, Debian's /media/cdrom",
    Right(carried=2, refused=2, words=("link",)),
)
def _named_by_a_link(folder: Path) -> None:
    for number, content in enumerate(_images("named by a link", 2), 1):
        put(folder / "cdrom0" / f"IM{number}", content)
    (folder / "cdrom").symlink_to("cdrom0")
    (folder / "one.dcm").symlink_to("cdrom0/IM1")


@_case(
    "names of folders and files in Latin-1",
    "CTK #404, Slicer #3999, dicompyler #83, dupeguru #335",
    Right(carried=2, not_dicom=1),
)
def _names_in_latin_1(folder: Path) -> None:
    inside = folder / os.fsdecode(b"t\xeate")
    for number, content in enumerate(_images("names in Latin-1", 2), 1):
        put(inside / os.fsdecode(b"M\xfcller %d" % number), content)
    put(inside / os.fsdecode(b"kein D\xedcom"), b"text")


@_case("names that begin with a dot", "CTK PR #797", Right(carried=2))
def _dotted_names(folder: Path) -> None:
    for number, content in enumerate(_images("dotted names", 2), 1):
        put(folder / ".T2 axial" / f".IM{number}", content)


@_case(
    "a path of more than 4,096 bytes, and a name of 255",
    "Weasis #422",
    Right(carried=3),
)
def _deep_folders(folder: Path) -> None:
    first, second, third = _images("deep folders", 3)
    put(folder / ("n" * 255), first)
    put(folder / "near", second)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        above, here = here, os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(above)
    handle = os.open("IM3", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
    os.write(handle, third)
    os.close(handle)
    os.close(here)


@_case("an empty folder and an empty ZIP", "common", Right())
def _nothing(folder: Path) -> None:
    (folder / "empty").mkdir(parents=True, exist_ok=True)
    put(folder / "empty.zip", zipped({}))


@_case("a folder without any DICOM", "common", Right(not_dicom=2))
def _nothing_of_dicom(folder: Path) -> None:
    put(folder / "letter.txt", b"Dear colleague\n")
    put(folder / "picture.png", b"\x89PNG\r\n\x1a\n" + bytes(500))


# -- archives and disc images -------------------------------------------------------------------


@_case("an image of a disc, as a file", "Weasis #160", Right(carried=4))
def _disc_images(folder: Path) -> None:
    a, b, c, d = _images("disc images", 4)
    put(folder / "plain.iso", imaged({"DICOM/IM1": a}))
    put(folder / "joliet.iso", imaged({"DICOM/IM2": b}, joliet=True))
    put(folder / "udf.iso", imaged({"DICOM/IM3": c}, udf=True))
    put(folder / "zipped.zip", zipped({"disc.iso": imaged({"IM4": d})}))


@_case(
    "a ZIP with Deflate64, which Windows makes above 2 GB",
    "osparc #2843, isic-archive #454, corefx #9925, romm PR #1156",
    Right(refused=3, words=("Deflate64", "7-Zip")),
)
def _deflate64(folder: Path) -> None:
    images = _images("Deflate64", 3)
    named = {f"CT/IM{number}.dcm": content for number, content in enumerate(images, 1)}
    put(folder / "study.zip", deflate64(named))


@_case(
    "a ZIP of ZIPs, one a study, as portals give it",
    "Darmis #52, shanoir #423",
    Right(carried=2, not_dicom=1),
)
def _zip_of_zips(folder: Path) -> None:
    first, second = _images("ZIP of ZIPs", 2)
    inside = {"study1.zip": zipped({"IM1": first}), "study2.zip": zipped({"a/IM2": second})}
    put(folder / "all.zip", zipped({**inside, "readme.txt": b"two studies"}))


@_case(
    "ZIPs that are encrypted, of bzip2, of LZMA, with backslashes in their names",
    "bioformats #3843",
    Right(
        carried=1, refused=3, words=("encrypted", "compressed by a method that is not supported")
    ),
)
def _zips_of_all_kinds(folder: Path) -> None:
    a, b, c, d = _images("ZIPs of all kinds", 4)
    put(folder / "backslashes.zip", zipped({"DICOM\\PATIENT\\IM1": a}))
    put(folder / "bzip2.zip", zipped({"IM2": b}, zipfile.ZIP_BZIP2))
    put(folder / "lzma.zip", zipped({"IM3": c}, zipfile.ZIP_LZMA))
    locked = bytearray(zipped({"IM4": d}))
    locked[6] |= 1
    locked[locked.index(b"PK\1\2") + 8] |= 1
    put(folder / "encrypted.zip", bytes(locked))


@_case(
    "a study as .dcm.gz, .tar.gz, .7z and .rar",
    "DICOMcloud #97; common in research",
    Right(carried=2, refused=2, words=("7-Zip", "RAR")),
)
def _other_archives(folder: Path) -> None:
    first, second = _images("other archives", 2)
    put(folder / "IM1.dcm.gz", gzip.compress(first))
    put(folder / "study.tar.gz", tarred({"IM2": second}, is_packed=True))
    put(folder / "study.7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(400))
    put(folder / "study.rar", b"Rar!\x1a\7\1\0" + bytes(400))


@_case(
    "bad sectors: in a file's first bytes, and far behind in a large file",
    "scratched discs",
    Right(carried=2, refused=2, words=("cannot be read",)),
)
def _bad_sectors(folder: Path) -> None:
    """Reads fail at the offset behind `_EIO`, where the library beside this file is loaded."""
    large = part10(image("bad sectors", 9, rows=3000, columns=3000))
    put(folder / "IM9_EIO15000000", large)
    for number, content in enumerate(_images("bad sectors", 3), 1):
        put(folder / (f"IM{number}" + ("_EIO0" if number == 1 else "")), content)
