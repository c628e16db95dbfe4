"""Landlock: a process gives up all files but one folder, irrevocably and without privileges.

Source: Documentation/userspace-api/landlock.rst, include/uapi/linux/landlock.h.
"""

import ctypes
import os
import struct
from pathlib import Path

from node.sandbox.seccomp import errno_text

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every machine
_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE = 1 << 0
# Rights on files by the version that knows them: 13 at first, then "refer", "truncate", and
# commands to devices.
_FILE_RIGHTS = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_NETWORK_RIGHTS = ((4, 0b11),)  # to bind and to connect, TCP
_SCOPES = ((6, 0b11),)  # abstract Unix sockets, signals to processes outside


def give_up_files(but: Path | None = None) -> str:
    """Give up all files that are not open; also TCP, sockets and signals, if the kernel can.

    Needs `no_new_privs`.

    Args:
        but: The one folder whose files may still be read, written and made; none is executed.

    Returns:
        Why the kernel did not do it; empty if it did.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_long(0), _VERSION)
    if version < 1:
        return errno_text()
    handled = _known(_FILE_RIGHTS, version)
    fields = [handled, _known(_NETWORK_RIGHTS, version), _known(_SCOPES, version)]
    while len(fields) > 1 and not fields[-1]:
        fields.pop()  # an older kernel takes no more than it knows
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(ctypes.c_long(_CREATE_RULESET), attributes, len(attributes), 0)
    if ruleset < 0:
        return errno_text()
    try:
        if but is not None:
            _allow(libc, ruleset, but, handled & ~_EXECUTE)
        done = libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_long(ruleset), ctypes.c_long(0))
        return errno_text() if done != 0 else ""
    finally:
        os.close(ruleset)


def _known(rights: tuple[tuple[int, int], ...], version: int) -> int:
    return sum(bits for since, bits in rights if version >= since)


def _allow(libc: ctypes.CDLL, ruleset: int, folder: Path, rights: int) -> None:
    """Add an exception for what is below a folder; `OSError` if the folder is not there."""
    parent = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, parent)
        if libc.syscall(ctypes.c_long(_ADD_RULE), ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "no rule could be made for the folder")
    finally:
        os.close(parent)
