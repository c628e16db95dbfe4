"""A filter of system calls (seccomp-BPF), put together by hand for two machines.

Why not libseccomp: what is needed is a list of numbers in a program of five kinds of
instruction, and its Python binding has had no release since 2021. Other machines than these
two have no filter, and say so.

Sources: Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{bpf_common,seccomp}.h,
the kernel's tables of system calls (x86_64: arch/x86/entry/syscalls, arm64: asm-generic/unistd.h).
"""

import ctypes
import errno
import platform
import struct
from collections.abc import Iterable, Sequence

# Name: number on x86_64, number on aarch64; None where the machine has no such call.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "mremap": (25, 216), "madvise": (28, 233), "futex": (202, 98),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "setitimer": (38, 103), "restart_syscall": (219, 128),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "getrandom": (318, 278), "sched_yield": (24, 124), "rseq": (334, 293),
    "getpid": (39, 172), "gettid": (186, 178), "exit": (60, 93), "exit_group": (231, 94),
    # What is refused with an error where files are out of reach: a late import, for example.
    "open": (2, None), "openat": (257, 56), "stat": (4, None), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "readlink": (89, None), "readlinkat": (267, 78),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "getcwd": (79, 17), "ioctl": (16, 29), "fcntl": (72, 25),
    "sysinfo": (99, 179), "uname": (63, 160), "prlimit64": (302, 261),
    "sched_getaffinity": (204, 123),
    # What work in a folder takes besides.
    "getdents64": (217, 61), "mkdir": (83, None), "mkdirat": (258, 34), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "unlink": (87, None), "unlinkat": (263, 35),
    "rmdir": (84, None), "pread64": (17, 67), "pwrite64": (18, 68), "ftruncate": (77, 46),
    "fsync": (74, 82), "fdatasync": (75, 83), "dup": (32, 23), "writev": (20, 66),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "umask": (95, 166),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "utimensat": (280, 88), "sendfile": (40, 71), "copy_file_range": (326, 285),
    "clock_nanosleep": (230, 115),
}  # fmt: skip

_COMPUTING = (
    "read", "write", "futex", "mmap", "munmap", "mremap", "brk", "madvise", "mprotect", "close",
    "fstat", "lseek", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "setitimer",
    "restart_syscall", "clock_gettime", "clock_getres", "gettimeofday", "getrandom",
    "sched_yield", "rseq", "getpid", "gettid", "exit", "exit_group",
)  # fmt: skip
_LOOKING = (
    "open", "openat", "stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat", "access",
    "faccessat", "faccessat2", "getcwd", "ioctl", "fcntl",
    "sysinfo", "uname", "prlimit64", "sched_getaffinity",
)  # fmt: skip
_IN_A_FOLDER = (
    *_COMPUTING,
    *(name for name in _LOOKING if name != "ioctl"),
    "getdents64", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat",
    "rmdir", "pread64", "pwrite64", "ftruncate", "fsync", "fdatasync", "dup", "writev", "chmod",
    "fchmod", "fchmodat", "umask", "getuid", "geteuid", "getgid", "getegid", "utimensat",
    "sendfile", "copy_file_range", "clock_nanosleep",
)  # fmt: skip

# Machine: column above, AUDIT_ARCH, the numbers of seccomp(2), the first number of x32.
_MACHINES = {
    "x86_64": (0, 0xC000003E, 317, 0x40000000),
    "aarch64": (1, 0xC00000B7, 277, None),
}
_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1
_KILL_PROCESS, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _THIRD_ARGUMENT = 0, 4, 32  # in struct seccomp_data, little endian
_PROT_EXEC = 4


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def only_compute() -> str:
    """Let this process compute, read and write what is open, and nothing else, from now on.

    Looking for files is refused with an error; anything else is the process's end.

    Returns:
        Why the kernel did not take the filter; empty if it did.
    """
    return _install(_COMPUTING, _LOOKING, _KILL_PROCESS)


def only_files() -> str:
    """Let this process compute and work with files; see `only_compute`.

    Other calls are refused with an error instead: file libraries probe for features.
    """
    return _install(_IN_A_FOLDER, ("ioctl",), _ERRNO | errno.EPERM)


def _install(allowed: Iterable[str], refused: Iterable[str], otherwise: int) -> str:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return f"no filter is written for {platform.machine()}"
    column, arch, seccomp, x32 = machine
    code = program(
        arch,
        x32,
        _numbers(allowed, column),
        _numbers(refused, column),
        _numbers(("mmap", "mprotect"), column),
        otherwise,
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    filled = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    # All threads of the process, should a library have started one.
    done = libc.syscall(
        ctypes.c_long(seccomp),
        ctypes.c_long(_SET_MODE_FILTER),
        ctypes.c_long(_FILTER_FLAG_TSYNC),
        ctypes.byref(filled),
    )
    if done == 0:
        return ""
    return "a thread could not be bound" if done > 0 else errno_text()


def errno_text() -> str:
    """Return what the last call of the C library says went wrong."""
    number = ctypes.get_errno()
    return errno.errorcode.get(number, str(number))


def _numbers(names: Iterable[str], column: int) -> list[int]:
    found = (_NUMBERS[name][column] for name in names)
    return [number for number in found if number is not None]


def program(
    arch: int,
    x32: int | None,
    allowed: Sequence[int],
    refused: Sequence[int],
    never_executable: Sequence[int],
    otherwise: int,
) -> bytes:
    """Return the filter as the kernel takes it.

    Args:
        arch: The machine; calls of another are the process's end.
        x32: The first number of the x32 calls of that machine, which count as another's.
        allowed: Numbers that may be called.
        refused: Numbers that get EACCES.
        never_executable: Of those allowed, calls whose third argument may not ask for memory
            that can be executed.
        otherwise: What happens at all other numbers.
    """
    code = [_step(_LOAD, _ARCH), _step(_EQUAL, arch, 1, 0), _step(_RETURN, _KILL_PROCESS)]
    code.append(_step(_LOAD, _NR))
    if x32 is not None:
        code += [_step(_AT_LEAST, x32, 0, 1), _step(_RETURN, _KILL_PROCESS)]
    for number in allowed:
        if number in never_executable:
            code += [
                _step(_EQUAL, number, 0, 4),
                _step(_LOAD, _THIRD_ARGUMENT),
                _step(_ANY_BIT, _PROT_EXEC, 0, 1),
                _step(_RETURN, otherwise),
                _step(_RETURN, _ALLOW),
            ]
        else:
            code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    for number in refused:
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERRNO | errno.EACCES)]
    code.append(_step(_RETURN, otherwise))
    return b"".join(code)


def _step(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, k)
