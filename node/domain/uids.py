"""The forms of DICOM UIDs, for files, manifests and whatever else names them."""

import re

MAX_UID = 128
"""Characters that are carried: twice what PS3.5 §9.1 allows. Devices write UIDs of 65 to 68."""

_MAX_STANDARD = 64
# PS3.5 §9.1: components without leading zeroes, at most 64 characters.
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+\Z", re.ASCII)
_LOOSE_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z", re.ASCII)


def is_uid(text: str) -> bool:
    """Return whether `text` is a UID as PS3.5 §9.1 has it."""
    return len(text) <= _MAX_STANDARD and _UID.match(text) is not None


def is_loose_uid(text: str) -> bool:
    """Return whether `text` is at least digits and dots: odd, but harmless and unique."""
    return 0 < len(text) <= MAX_UID and _LOOSE_UID.match(text) is not None
