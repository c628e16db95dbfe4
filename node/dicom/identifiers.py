"""DICOM identifiers as they stand in files; their forms are in `node.domain.uids`."""


def uid_from_bytes(raw: bytes) -> str:
    """Return a UI value's text without its padding; undecodable bytes become `?`."""
    return raw.rstrip(b"\0 ").decode("ascii", "replace").replace("�", "?")
