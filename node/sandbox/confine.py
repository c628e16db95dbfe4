"""Confinement: what a process gives up before it handles foreign bytes, without being root.

How this works. There are five layers, since kernels and their environments differ in what they
allow. Each layer alone prevents most of what a compromised process could do:

- *privileges*: root becomes nobody; no capabilities, and none can be gained.
- *network*: an empty network namespace, and separate System V IPC and host names.
- *mounts*: an empty root folder.
- *files*: Landlock; no file can be opened.
- *syscalls*: a filter; only computing is left, no socket, no process, no signal, no new file.

The layers that the kernel denies are named, with its reason. Limits on memory and on files are
no layer: they hold everywhere.
"""

import ctypes
import os
import resource
import struct
from contextlib import suppress
from pathlib import Path

from node.sandbox import landlock, seccomp
from node.sandbox.seccomp import errno_text

LAYERS = {
    "privileges": "no capabilities, and no way to gain any",
    "network": "an empty network namespace",
    "mounts": "an empty root folder",
    "files": "Landlock: no file can be opened",
    "syscalls": "seccomp: computing only; no sockets, processes or signals",
}
"""Every layer, and its effect."""

_NEWUSER, _NEWNET, _NEWNS, _NEWIPC, _NEWUTS = (
    0x10000000, 0x40000000, 0x00020000, 0x08000000, 0x04000000,
)  # fmt: skip
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x4000, 1 << 18, 2
_MS_LOCKED_DOWN = 0b1111  # read-only, no set-user-id, no devices, nothing executable
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_SIGKILL = 9
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
_NOBODY = 65534
_FOLDER_FILES, _FOLDER_FILE_BYTES = 64, 2 * 2**30

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p,
)  # fmt: skip


def hide() -> None:
    """Keep other processes of this user out of this one: its memory, its files, its core."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine_to_computing(memory_bytes: int) -> dict[str, str]:
    """Give up everything but memory, standard input and output, for good.

    Every module and codec has to be loaded before. Files beyond the standard three are closed.

    Returns:
        The layers that the kernel denied, with its reason.
    """
    _limit(memory_bytes, file_bytes=0)
    denied = _leave(with_mounts=True)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    denied["files"] = landlock.give_up_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    denied["syscalls"] = seccomp.only_compute()
    return {layer: why for layer, why in denied.items() if why}


def confine_to_folder(memory_bytes: int, folder: Path) -> dict[str, str]:
    """Give up everything but memory and one folder; see `confine_to_computing`.

    The process goes on as the user that it is: the folder's files are that user's.

    Raises:
        OSError: the folder is not there.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    _limit(memory_bytes, file_bytes=_FOLDER_FILE_BYTES)
    denied = _leave(with_mounts=False)
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)  # gone with the privileges
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FOLDER_FILES, _FOLDER_FILES))
    denied["files"] = landlock.give_up_files(folder)
    denied["syscalls"] = seccomp.only_files()
    return {layer: why for layer, why in denied.items() if why}


def _limit(memory_bytes: int, *, file_bytes: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        with suppress(ValueError):  # lower already
            resource.setrlimit(limit, (value, value))


def _leave(*, with_mounts: bool) -> dict[str, str]:
    """Leave the namespaces and the privileges that this process was started with."""
    denied: dict[str, str] = {}
    # As root at once; as anybody else inside a user namespace, where anybody is root.
    is_root = os.geteuid() == 0
    is_left = is_root and _leave_namespaces(0, denied, with_mounts=with_mounts)
    if is_root and with_mounts:
        denied["privileges"] = _become_nobody()
    if not is_left:
        _leave_namespaces(_NEWUSER, denied, with_mounts=with_mounts)
    denied["privileges"] = denied.get("privileges") or _drop_capabilities()
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return denied


def _leave_namespaces(inside: int, denied: dict[str, str], *, with_mounts: bool) -> bool:
    others = _NEWNET | _NEWIPC | _NEWUTS
    if with_mounts and _libc.unshare(inside | others | _NEWNS) == 0:
        denied["network"] = ""
        denied["mounts"] = _empty_root()
        return True
    why = errno_text() if with_mounts else ""
    is_left = bool(_libc.unshare(inside | others) == 0)
    denied["network"] = "" if is_left else errno_text()
    if with_mounts:
        denied["mounts"] = why
    return is_left


def _empty_root() -> str:
    """Make an empty folder the root; return why that was not possible."""
    here = b"/proc"  # any folder that is there: only its place is used
    if (
        _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0
        or _libc.mount(b"none", here, b"tmpfs", _MS_LOCKED_DOWN, b"size=0,nr_inodes=1") != 0
    ):
        return errno_text()
    os.chdir(here)
    # Both arguments are the same place: the old root is then mounted over the new one, and is
    # unmounted.
    pivot_root = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine)
    if pivot_root is None:
        return f"the system call number is unknown for {os.uname().machine}"
    if (
        _libc.syscall(ctypes.c_long(pivot_root), b".", b".") != 0
        or _libc.umount2(b".", _MNT_DETACH) != 0
    ):
        return errno_text()
    os.chdir("/")
    return ""


def _become_nobody() -> str:
    try:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    except OSError as exc:
        return os.strerror(exc.errno or 0)
    return ""


def _drop_capabilities() -> str:
    """Drop all capabilities, and the ways to new ones."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # those that are not held say so
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    return errno_text() if _libc.capset(header, bytes(24)) != 0 else ""
