"""Recognising archives and disc images by their first bytes."""

import enum

HEAD_BYTES = 0x8006
"""How many of a file's first bytes it takes."""

FIRST_BYTES = 512
"""How many it takes for all but disc images."""

MOST_SIZE = 2**42
"""The largest stated size of a file in an archive; 100,000 such sizes can be added up."""

_TAR_MAGIC, _ISO_MAGIC = slice(257, 262), slice(0x8001, 0x8006)
_PREFIX = slice(128, 132)


class Kind(enum.Enum):
    """What a file is that has others in it."""

    ZIP = "ZIP"
    TAR = "tar"
    GZIP = "gzip file"
    ISO = "disc image"
    SEVEN_ZIP = "7-Zip archive"
    RAR = "RAR archive"
    BZIP2 = "bzip2 file"
    XZ = "xz file"

    @property
    def is_read(self) -> bool:
        """Whether we look into it."""
        return self in (Kind.ZIP, Kind.TAR, Kind.GZIP, Kind.ISO)

    @property
    def problem(self) -> str:
        """What to say of one that we do not look into."""
        return f"{'an' if self is Kind.XZ else 'a'} {self.value}; unpack it first"


_MAGICS = (
    (b"PK\3\4", Kind.ZIP),
    (b"PK\5\6", Kind.ZIP),  # without entries
    (b"\x1f\x8b", Kind.GZIP),
    (b"7z\xbc\xaf\x27\x1c", Kind.SEVEN_ZIP),
    (b"Rar!\x1a\7", Kind.RAR),
    (b"BZh", Kind.BZIP2),
    (b"\xfd7zXZ\0", Kind.XZ),
)


def kind_of(head: bytes) -> Kind | None:
    """Return the kind of a file with this beginning; None if it is no archive.

    A DICOM file may begin like an archive; a person must decide about such a file.

    Args:
        head: `HEAD_BYTES` of it, or all; see `FIRST_BYTES`.
    """
    if head[_PREFIX] == b"DICM":
        return None
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head[_TAR_MAGIC] == b"ustar":
        return Kind.TAR
    if head[_ISO_MAGIC] == b"CD001":
        return Kind.ISO
    return None


def label_inside(archive: str, name: str) -> str:
    """Return what a file in an archive is called; a gzip file's, which has no name, like that."""
    if name:
        return f"{archive}!{name}"
    return archive[:-3] if archive.lower().endswith(".gz") else archive
