"""Recognising files that a person named by mistake, by their first bytes.

The formats are defined by the modules that write them. A recovery kit is recognised too, because it
is a secret that should not be kept there.
"""

import json

_KINDS = {
    "emix-keyring/": "the keyring of a home",
    "emix-recovery-kit/": "a recovery kit, which is secret: move it to a safe place offline",
    "emix-proof/": "a proof, for `emix receipts verify`",
    "emix-audit-head/": "the head of an audit log, for `emix audit verify --head`",
    "emix-node-request/": "a request for a certificate, for `emix node certify`",
    "emix-node-certificate/": "a node's certificate, for `emix node renew --certificate`",
}
_BEGINNINGS = (
    (b"emix-join-", "a join letter, for `emix join`"),
    (b"PK\x03\x04", "a ZIP"),
    (b"%PDF", "a PDF"),
    (b"[facility]", "a configuration"),
)
_MOST_BYTES = 1 << 20


def kind_of_file(data: bytes) -> str:
    """Return what a file is, in words; empty where that cannot be said."""
    start = data[:64].lstrip(b"\xef\xbb\xbf \r\n")
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if start.startswith(b"{") and len(data) <= _MOST_BYTES:
        return _kind_of_json(data)
    return ""


def _kind_of_json(data: bytes) -> str:
    try:
        value = json.loads(data)
        named = str(value["format"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "JSON of another kind"
    return next((kind for name, kind in _KINDS.items() if named.startswith(name)), "")


def wrong_file(name: str, data: bytes, wanted: str) -> str:
    """Return what to say of a file that is not what was wanted."""
    kind = kind_of_file(data)
    return f"{name} is not {wanted}, or damaged" + (f"; it is {kind}" if kind else "")
