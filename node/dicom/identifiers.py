"""DICOM identifiers, checked once where they come in."""

import re

# PS3.5 §9.1: components without leading zeroes, at most 64 characters.
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+\Z", re.ASCII)
_LOOSE_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z", re.ASCII)
MAX_UID = 64


def is_uid(text: str) -> bool:
    """Return whether `text` is a UID as PS3.5 §9.1 has it."""
    return len(text) <= MAX_UID and _UID.match(text) is not None


def is_loose_uid(text: str) -> bool:
    """Return whether `text` is at least digits and dots: odd, but harmless and unique."""
    return 0 < len(text) <= MAX_UID and _LOOSE_UID.match(text) is not None


def uid_from_bytes(raw: bytes) -> str:
    """Return a UI value's text without its padding; undecodable bytes become `?`."""
    return raw.rstrip(b"\0 ").decode("ascii", "replace").replace("�", "?")
