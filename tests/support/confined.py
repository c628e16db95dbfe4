"""Runs a command under what a systemd unit takes away, where no systemd runs.

    python -m tests.support.confined deploy/emix.service WRITABLE_FOLDER COMMAND...

The kernel's means are the same: mounts that are read-only, another user without capabilities,
the unit's filter of system calls (its sets as systemd knows them), address families, namespaces,
memory that is never both written and executed. What needs a cgroup is left out.
"""

import ctypes
import grp
import os
import pwd
import resource
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_NAMESPACES = {
    "cgroup": 0x02000000, "ipc": 0x08000000, "net": 0x40000000, "mnt": 0x00020000,
    "pid": 0x20000000, "user": 0x10000000, "uts": 0x04000000,
}  # fmt: skip
_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x00020000, 0x1000, 0x4000, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY = 442, -100, 0x8000, 1
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 24, 38, 65
_ALLOW, _EPERM, _EAFNOSUPPORT, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050061, 0x00050026
_EQUAL, _MASKED_EQUAL = 4, 7
_MOST_FAMILIES = 64

Settings = dict[str, list[str]]


class _Compare(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def read_unit(path: Path) -> Settings:
    """Return a unit's settings, each with all its values in order."""
    found: Settings = defaultdict(list)
    for line in path.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith(("#", "[")):
            found[name].append(value)
    return found


def system_calls(settings: Settings) -> set[str]:
    """Return the names of the system calls that a unit's filter lets through."""
    allowed: set[str] = set()
    for value in settings["SystemCallFilter"]:
        names = _expanded(value.removeprefix("~").split())
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed | _expanded(["@default"])


def _expanded(names: list[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        command = ["systemd-analyze", "--no-pager", "syscall-filter", name]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines = [line.strip() for line in listed.splitlines()[1:]]
        found |= _expanded([line for line in lines if line and not line.startswith("#")])
    return found


class _Filter:
    """A filter of system calls, by libseccomp."""

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(otherwise)))

    def add(self, action: int, name: str, *compared: tuple[int, int, int, int]) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # of another architecture
        array = (_Compare * len(compared))(*(_Compare(*one) for one in compared))
        rule = (ctypes.c_uint32(action), number, len(compared), array)
        if self._library.seccomp_rule_add_array(self._context, *rule):
            raise OSError(f"no rule for {name}")

    def load(self) -> None:
        if self._library.seccomp_load(self._context):
            raise OSError("the filter cannot be loaded")


def _filters(settings: Settings) -> list[_Filter]:
    calls = _Filter(_EPERM)
    for name in sorted(system_calls(settings)):
        calls.add(_ALLOW, name)
    families = _Filter(_ALLOW)
    allowed = {
        int(getattr(socket, f)) for f in " ".join(settings["RestrictAddressFamilies"]).split()
    }
    for family in set(range(_MOST_FAMILIES)) - allowed:
        families.add(_EAFNOSUPPORT, "socket", (0, _EQUAL, family, 0))
    namespaces = _Filter(_ALLOW)
    [kept] = settings["RestrictNamespaces"]
    for name in _NAMESPACES.keys() - set("" if kept == "yes" else kept.split()):
        flag = _NAMESPACES[name]
        for call in ("unshare", "clone"):
            namespaces.add(_EPERM, call, (0, _MASKED_EQUAL, flag, flag))
    namespaces.add(_ENOSYS, "clone3")  # its flags cannot be seen
    return [families, namespaces, calls]


def _hold(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _set_read_only(path: str, *, is_read_only: bool) -> None:
    attributes = (ctypes.c_uint64 * 4)(*((_RDONLY, 0) if is_read_only else (0, _RDONLY)), 0, 0)
    flags = _AT_RECURSIVE if is_read_only else 0
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    call = (ctypes.c_long(_MOUNT_SETATTR), _AT_FDCWD, path.encode(), flags, attributes, size)
    _hold(_libc.syscall(*call), f"attributes of {path}")


def _mount(source: str, path: str, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), path.encode(), kind.encode(), flags, options.encode())
    _hold(_libc.mount(*arguments), f"mount of {path}")


def _shut_in(settings: Settings, writable: str) -> None:
    """Give this process mounts of its own, on which it can write to one folder."""
    _hold(_libc.unshare(_NEWNS), "mounts")
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _show_interpreter()
    subset = ",subset=pid" if settings["ProcSubset"] == ["pid"] else ""
    _mount("proc", "/proc", "proc", 0, f"hidepid={settings['ProtectProc'][0]}{subset}")
    _mount(writable, writable, "", _MS_BIND)
    _set_read_only("/", is_read_only=True)
    _set_read_only(writable, is_read_only=False)


def _show_interpreter() -> None:
    """Let everybody reach a Python that lies in a home that is closed to others."""
    home = Path("/root")
    if not Path(sys.base_prefix).is_relative_to(home) or home.stat().st_mode & 0o001:
        return
    part = Path(sys.base_prefix).relative_to(home).parts[0]
    held = os.open(home / part, os.O_PATH | os.O_DIRECTORY)
    _mount("none", str(home), "tmpfs", 0, "mode=755")
    (home / part).mkdir()
    _mount(f"/proc/self/fd/{held}", str(home / part), "", _MS_BIND)
    os.close(held)


def _become_ordinary() -> None:
    user = pwd.getpwnam("nobody")
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    # As systemd does with the groups that a user is in; nobody is in none.
    group = os.environ.get("CONFINED_GROUP")
    os.setgroups([grp.getgrnam(group).gr_gid] if group else [])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main() -> None:
    """Run a command as a unit would have it."""
    unit, writable, *command = sys.argv[1:]
    settings = read_unit(Path(unit))
    filters = _filters(settings)
    if os.geteuid() == 0:
        _shut_in(settings, writable)
        _become_ordinary()
    os.umask(int(settings["UMask"][0], 8))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(HOME=writable, TMPDIR=writable, PYTHONDONTWRITEBYTECODE="1")
    _hold(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if settings["MemoryDenyWriteExecute"] == ["yes"]:
        _hold(_libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0), "memory")
    for one in filters:
        one.load()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
