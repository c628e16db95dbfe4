"""Names of files on media: as written in a DICOMDIR, and as found on a copied disc.

A DICOMDIR names files as ISO 9660 has them: eight upper-case letters, no suffix (PS3.10 §8.2). The
same disc, copied or mounted otherwise, has them in lower case, or with `.dcm` or `;1` behind.
"""

SUFFIXES = (".DCM", ".DICOM", ".IMA")
_DIRECTORY = "DICOMDIR"
_VERSION = ";1"


def is_directory_name(name: str) -> bool:
    """Return whether a file is called as a DICOMDIR is."""
    return name.upper().removesuffix(_VERSION) == _DIRECTORY


def plain_file(path: str) -> str:
    """Return the same for every way in which the name of a file, or a path to one, is written."""
    plain = plain_folder(path).removesuffix(_VERSION)
    for suffix in SUFFIXES:
        plain = plain.removesuffix(suffix)
    return plain.rstrip(".")


def plain_folder(path: str) -> str:
    """Return the same for every way in which the name of a folder, or a path to one, is written."""
    return path.upper().replace("\\", "/")
