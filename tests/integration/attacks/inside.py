"""What somebody tries who has taken over a parser process. Run by itself, as an ordinary user.

`inside.py WITHOUT ARENA_FD ATTEMPT ARGUMENT...` becomes a parser as the node's do, and then
does one thing; it prints how far it came. WITHOUT names layers of the confinement that are left
out, `all` for a process that is not confined at all: what succeeds there is a real attempt.
"""

import ctypes
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

_ARENA_BYTES = 4 * 2**20
_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read_file(path: str) -> None:
    assert Path(path).read_bytes()


def list_folder(path: str) -> None:
    assert os.listdir(path)  # noqa: PTH208


def write_file(path: str) -> None:
    Path(path, "left-behind").write_bytes(b"")


def open_admin(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(path)


def connect(port: str) -> None:
    socket.create_connection(("127.0.0.1", int(port)), 5).close()


def send_datagram(port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", int(port)))
        out.send(b"hello")


def connect_abstract(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as out:
        out.connect(b"\0" + name.encode())


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def execute() -> None:
    """Say so through the program that runs then."""
    os.execv("/bin/echo", ["echo", "SUCCEEDED"])


def trace(pid: str) -> None:
    _checked(_libc.ptrace(_PTRACE_ATTACH, int(pid), None, None))
    os.waitpid(int(pid), 0)
    _libc.ptrace(_PTRACE_DETACH, int(pid), None, None)


def read_memory(pid: str) -> None:
    """By the call that needs no file."""
    here = ctypes.create_string_buffer(8)
    where = ctypes.c_void_p(id(None))  # any address: not to be allowed at all says EPERM
    local = (ctypes.c_void_p * 2)(ctypes.addressof(here), 8)
    remote = (ctypes.c_void_p * 2)(where, 8)
    try:
        _checked(_libc.process_vm_readv(int(pid), local, 1, remote, 1, 0))
    except OSError as exc:
        if exc.strerror != "Bad address":
            raise


def send_signal(pid: str) -> None:
    os.kill(int(pid), signal.SIGWINCH)


def take_limit(pid: str) -> None:
    import resource

    resource.prlimit(int(pid), resource.RLIMIT_NOFILE)


def make_file() -> None:
    os.memfd_create("more")


def make_pipe() -> None:
    os.pipe()


def leave_again() -> None:
    """Become root in one more user namespace."""
    _checked(_libc.unshare(0x10000000))


def _arena_address(arena: mmap.mmap) -> int:
    import re

    for line in Path("/proc/self/maps").read_text().splitlines():
        if "emix-arena" in line:
            return int(re.match("[0-9a-f]+", line).group(), 16)  # type: ignore[union-attr]
    raise AssertionError("the arena is not mapped")


def main() -> None:
    without, fd, attempt, *arguments = sys.argv[1:]
    arena = mmap.mmap(int(fd), _ARENA_BYTES, prot=mmap.PROT_READ)
    address = _arena_address(arena)

    def write_arena() -> None:
        _checked(_libc.mprotect(ctypes.c_void_p(address), _ARENA_BYTES, 3))
        ctypes.memset(address, 0xFF, 4096)

    def cut_arena() -> None:
        """The file, by whatever number it is still open."""
        for number in range(3, 16):
            try:
                os.ftruncate(number, 0)
            except OSError:
                continue
            return
        raise OSError("no file is open")

    def run_memory() -> None:
        """Memory that can be written and executed."""
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

    known: dict[str, Callable[..., None]] = {
        f.__name__: f
        for f in (
            read_file, list_folder, write_file, open_admin, connect, send_datagram,
            connect_abstract, fork, execute, trace, read_memory, send_signal, take_limit,
            make_file, make_pipe, leave_again, write_arena, cut_arena, run_memory,
        )
    }  # fmt: skip
    run = known[attempt]
    if without != "all":
        from node.dicom.worker import confine

        if without != "nothing":
            leave_out(without.split(","))
        confine()
    # Who may have three files open makes room among them.
    os.close(0)
    os.close(2)
    try:
        run(*arguments)
    except Exception as exc:  # any failure is an answer
        os.write(1, f"failed: {type(exc).__name__} {exc}".encode())
    else:
        os.write(1, b"SUCCEEDED")
    os._exit(0)


def leave_out(layers: list[str]) -> None:
    """Confine as on a kernel that denies some layers."""
    from node.sandbox import confine, landlock, seccomp

    for layer in layers:
        if layer == "syscalls":
            seccomp.only_compute = lambda: "left out"
        elif layer == "files":
            landlock.give_up_files = lambda but=None: "left out"
        elif layer == "namespaces":
            confine._leave_namespaces = lambda *_, **__: True


if __name__ == "__main__":
    main()
