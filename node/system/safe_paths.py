"""Safe use of paths that other users of this machine could redirect.

How this works. A folder is opened component by component from the root, each relative to the
descriptor of the one before. The kernel never follows a link: a link is read and resolved here, and
only if root or this user made it. Each folder on the path must belong to root or this user, and
nobody else may write in it. In a sticky folder such as /tmp, the next component must belong to root
or this user too. That is OpenSSH's rule for `authorized_keys`. After such a walk only root can
change what the path means, so the path can also be used by name.

A file that is written appears whole under its name, by a rename within its folder. A file that is
read must be a regular file: a pipe would block us, and a device would never end.

A group that is its owner's own, with nobody else in it, is no other user; an access list (ACL)
shows in a folder's group bits, and is refused there.
"""

import errno
import grp
import os
import pwd
import secrets
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from node.errors import ConfigError, StoreFull

MOST_LINKS = 40
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
RESERVE_BYTES = 64 << 20
"""Left free on a disk that is written to."""
LOST_AND_FOUND = "lost+found"
"""Where a file system is mounted, root has this folder: the place is empty all the same."""

_MARKS_OF_A_HOME = ("keyring", "emix.toml", "directory.toml", "metadata.db")
_FILE_BYTES = 4096  # what a file takes beside its bytes, about
_ACL = "system.posix_acl_access"
_OUR_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def absolute(path: Path) -> Path:
    """Return a path from the root on.

    Raises:
        ConfigError: it is relative to a working folder that this user may not use.
    """
    path = Path(path)
    if path.is_absolute():
        return path
    check_working_folder(path)
    return path.absolute()


def check_working_folder(path: Path) -> None:
    """Check that what is relative to the working folder can be used.

    Raises:
        ConfigError: this user may not enter it, or it is gone; the message names the path.
    """
    where = "the working folder"
    try:
        where = f"{where} {Path.cwd()}"
        Path(os.curdir).stat()
    except OSError as exc:
        raise ConfigError(
            f"{path} is in {where}, which {user_text(os.geteuid())} cannot use"
            f" ({os.strerror(exc.errno or 0)}): `cd` elsewhere, or give an absolute path"
        ) from exc


@contextmanager
def folder(
    path: Path, *, make: bool = False, is_ours: bool = False, owner: int = 0
) -> Iterator[tuple[int, Path]]:
    """Open a folder that no other user can replace; yield its descriptor and its real path.

    Args:
        path: The folder.
        make: Make it, for this user alone, if it is not there; missing parents are not made.
        is_ours: Require that it belongs to this user, and that nobody else may write in it.
        owner: A further user who is trusted, beside root and this user.

    Raises:
        ConfigError: another user can change the path; the message names the component.
        OSError: it is not there, or not a folder, or may not be opened.
    """
    trusted = frozenset({0, os.geteuid(), owner})
    step, real = _walk(absolute(path), trusted, make=make)
    try:
        if is_ours:
            _check_ours(step, real)
        fd = os.open(".", _FOLDER, dir_fd=step)
    finally:
        os.close(step)
    try:
        yield fd, real
    finally:
        os.close(fd)


def names(fd: int) -> list[str]:
    """Return the names in an open folder, but for what its file system keeps there itself."""
    return [name for name in os.listdir(fd) if name != LOST_AND_FOUND]  # of a descriptor


def real_folder(path: Path, *, make: bool = False, is_ours: bool = False, owner: int = 0) -> Path:
    """Return the real path of a folder that no other user can exchange; see `folder`."""
    trusted = frozenset({0, os.geteuid(), owner})
    step, real = _walk(absolute(path), trusted, make=make)
    try:
        if is_ours:
            _check_ours(step, real)
    finally:
        os.close(step)
    return real


def check_room(fd: int, needed_bytes: int, files: int, where: Path) -> None:
    """Check that an open folder's disk has room for files of so many bytes, with a reserve left.

    Raises:
        StoreFull: it has not; the message names both sizes.
    """
    disk = os.statvfs(fd)
    free = disk.f_bavail * disk.f_frsize - RESERVE_BYTES
    needed = needed_bytes + files * _FILE_BYTES
    if needed > free:
        raise StoreFull(
            f"{where} has room for {max(0, free) / 1e6:.1f} MB, and {needed / 1e6:.1f} MB are to be"
            " written; choose another disk, or free space there"
        )


def check_tree(path: Path) -> tuple[int, int]:
    """Check that a folder has only folders and plain files, none of which others may change.

    Returns:
        How many files, and their bytes.

    Raises:
        ConfigError: something else is there; the message names it.
        OSError: it cannot be looked at.
    """
    trusted = frozenset({0, os.geteuid()})
    count = size = 0
    for where, folders, files, fd in os.fwalk(real_folder(path), onerror=_raise):
        folders[:] = [name for name in folders if name != LOST_AND_FOUND]
        _check_safe(fd, Path(where), trusted)
        for name in files:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{where}/{name} is not a file; the copy is incomplete")
            _check_owner(found, Path(where) / name, trusted)
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                _check_unwritable(fd, name, Path(where))
            count, size = count + 1, size + found.st_size
    return count, size


def check_plain(fd: int, where: Path) -> None:
    """Check that what was opened is a plain file; `ConfigError` if not."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ConfigError(f"{where} is not a file")


def shut(fd: int, where: Path) -> None:
    """Remove all other users' access to an open folder of this user.

    Raises:
        ConfigError: its file system does not store access rights, so others have access.
    """
    if not stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
        return
    with suppress(OSError):
        os.fchmod(fd, _PRIVATE_FOLDER)
    if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
        raise ConfigError(
            f"{where} is on a file system without access rights, so others could read the files."
            " Choose another disk, or mount it for this user alone (umask=077)"
        )


def write_file(path: Path, data: bytes, mode: int = _PRIVATE_FILE, *, is_new: bool = False) -> None:
    """Write or replace a file of this user, atomically; durable once this returns.

    Args:
        path: The file; its folder exists.
        data: Its content.
        mode: Its access rights.
        is_new: Fail if it exists.

    Raises:
        ConfigError: it exists and may not be replaced, or cannot be written; nothing is left.
    """
    temporary = f".{path.name[:100]}.{secrets.token_hex(8)}.tmp"
    try:
        with folder(path.parent) as (parent, _):
            if is_new:  # a rename would replace one that came meanwhile
                _write(parent, path.name, data, mode)
            else:
                _check_replaceable(path, parent)
                _write(parent, temporary, data, mode)
                os.rename(temporary, path.name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
    except FileExistsError as exc:
        raise ConfigError(f"{path} exists already; choose another file") from exc
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({os.strerror(exc.errno or 0)})") from exc


def user_text(uid: int) -> str:
    """Return a user for people: the name, where there is one, and the number."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (KeyError, OSError):
        return f"uid {uid}"


def denial(path: Path, rights: int = os.R_OK | os.W_OK) -> str:
    """Return why this user may not use a file or folder, and what to do; empty if it may.

    Args:
        path: The file or folder. If it does not exist, its parent folder is checked.
        rights: The rights that are needed, as for `os.access`.
    """
    try:
        path = absolute(path)
    except ConfigError as exc:
        return str(exc)
    for above in reversed(path.parents):
        if not os.path.lexists(above):
            return ""
        if not _may(above, os.X_OK):
            return _denied(above)
    if not os.path.lexists(path):
        path, rights = path.parent, os.W_OK | os.X_OK
    return "" if _may(path, rights) else _denied(path)


def _may(path: Path, rights: int) -> bool:
    return os.access(path, rights, effective_ids=True)


def _denied(path: Path) -> str:
    """Return why a file may not be used, and what would change that."""
    if _may(path, os.R_OK) and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is on a read-only file system. Mount it for writing"
    found, ours = path.stat(), os.geteuid()
    mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_uid == ours:
        return f"{path} has {mode}. Run: chmod u+rwX {shlex.quote(str(path))}"
    why = f"{path} belongs to {user_text(found.st_uid)} with {mode}, and this runs as"
    why += f" {user_text(ours)}."
    if _is_part_of_our_home(path):
        part = f"{'-R ' if path.is_dir() else ''}{user_name(ours)} {shlex.quote(str(path))}"
        return f"{why} It is in this user's home. As root, run: chown {part}"
    return (
        f"{why} Leave its owner as it is. Run this as that user"
        f" (sudo -u {_sudo_name(found.st_uid)} ...), or use a file or folder of your own"
    )


def _is_part_of_our_home(path: Path) -> bool:
    """Return whether a path lies in a home of this user: then a foreign file's owner should change.

    Elsewhere, or in a home that is wholly another user's, that would take the file from its owner.
    """
    for above in path.parents:
        if any(os.path.lexists(above / name) for name in _MARKS_OF_A_HOME):
            return above.stat().st_uid == os.geteuid()
    return False


def by_owner(home: Path, command: str) -> str:
    """Return a command as this user has it run: through sudo, where the home is another's."""
    owner = home.stat().st_uid
    return command if owner == os.geteuid() else f"sudo -u {_sudo_name(owner)} {command}"


def user_name(uid: int) -> str:
    """Return what commands take a user by: the name, or the number where there is none."""
    return user_text(uid).removeprefix("uid ").partition(" ")[0]


def check_user(home: Path) -> None:
    """Check that a home belongs to the current user: its node could not use others' files in it.

    Raises:
        ConfigError: it is another user's; the message names both, and the command to use.
    """
    try:
        owner = home.stat().st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid():
        raise ConfigError(
            f"{home} belongs to another user, {user_text(owner)}, and this runs as"
            f" {user_text(os.geteuid())}: its owner could not use the files that were made here."
            f" Run it as that user: sudo -u {_sudo_name(owner)} ..."
        )


def _sudo_name(uid: int) -> str:
    """Return a user as sudo takes one."""
    name = user_name(uid)
    return f"'#{uid}'" if name == str(uid) else name


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file, or what is given on one of our descriptors.

    Raises:
        ConfigError: it is something else, or has more than `most_bytes`.
        OSError: it cannot be read.
    """
    absolute(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as handle:
        found = os.fstat(fd)
        is_given = stat.S_ISFIFO(found.st_mode) and str(path).startswith(_OUR_DESCRIPTORS)
        if not stat.S_ISREG(found.st_mode) and not is_given:
            raise ConfigError(f"{path} is not a file")
        os.set_blocking(fd, True)
        data = handle.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ConfigError(f"{path} has more than {most_bytes} bytes, so it is the wrong file")
    return data


def _raise(error: OSError) -> None:
    raise error


def _walk(path: Path, trusted: frozenset[int], *, make: bool) -> tuple[int, Path]:
    """Return a descriptor of a folder, and where it really is."""
    left = list(reversed(path.parts[1:]))
    steps = [os.open("/", _STEP)]
    passed: list[str] = []
    links = 0
    try:
        while left:
            name = left.pop()
            if name == "..":
                if passed:
                    passed.pop()
                    os.close(steps.pop())
                continue
            where = Path("/", *passed)
            _check_safe(steps[-1], where, trusted)
            try:
                step = _step(steps[-1], name, make=make and not left)
            except FileNotFoundError:
                if make and left:
                    raise nothing_above(where / name, path) from None
                raise
            found = os.fstat(step)
            if stat.S_ISLNK(found.st_mode):
                target = os.readlink("", dir_fd=step)
                os.close(step)
                links += 1
                _check_owner(found, where / name, trusted)
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                if target.startswith("/"):
                    while len(steps) > 1:
                        os.close(steps.pop())
                    passed.clear()
                left += reversed([part for part in target.split("/") if part not in ("", ".")])
                continue
            steps.append(step)
            passed.append(name)
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        _check_safe(steps[-1], Path("/", *passed), trusted)
        return os.dup(steps[-1]), Path("/", *passed)
    finally:
        for fd in steps:
            os.close(fd)


def nothing_above(missing: Path, path: Path) -> ConfigError:
    """Return the error for a folder whose parent is missing."""
    return ConfigError(
        f"{missing} does not exist, and only the last folder of {path} is created. Mount the disk,"
        " or create the folders"
    )


def _step(parent: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _STEP, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, _PRIVATE_FOLDER, dir_fd=parent)
        _sync_folder(parent)
    return os.open(name, _STEP, dir_fd=parent)


def _sync_folder(step: int) -> None:
    """Make a new name in a folder durable; the descriptor of a step cannot be synced itself."""
    with suppress(PermissionError):  # a folder that is writable, but not readable, for this user
        fd = os.open(".", _FOLDER, dir_fd=step)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _check_owner(found: os.stat_result, where: Path, trusted: frozenset[int]) -> None:
    if found.st_uid not in trusted:
        raise ConfigError(
            f"{where} belongs to another user, {user_text(found.st_uid)}, who could redirect this"
            f" path of {user_text(os.geteuid())}. Choose a path that is yours, or run this as that"
            " user"
        )


def _check_safe(step: int, where: Path, trusted: frozenset[int]) -> None:
    """Check that other users cannot replace what lies in a folder."""
    found = os.fstat(step)
    _check_owner(found, where, trusted)
    if _may_others_write(step, found) and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"Other users can write in {where} and could redirect this path. Choose another path,"
            f" or run: chmod go-w {where}"
        )


def _check_unwritable(parent: int, name: str, where: Path) -> None:
    """Check that nobody but root and its owner may write in a file."""
    step = os.open(name, _STEP, dir_fd=parent)
    try:
        if _may_others_write(step, os.fstat(step)):
            file = where / name
            raise ConfigError(
                f"Other users can write to {file}, so it may have been altered. Use another copy,"
                f" or, if you trust this one, run: chmod go-w {shlex.quote(str(file))}"
            )
    finally:
        os.close(step)


def _may_others_write(step: int, found: os.stat_result) -> bool:
    """Return whether anybody but root and the owner may write in a folder or file."""
    if not found.st_mode & stat.S_IWGRP:
        return bool(found.st_mode & stat.S_IWOTH)
    return bool(found.st_mode & stat.S_IWOTH) or not _is_private_group(step, found)


def _is_private_group(step: int, found: os.stat_result) -> bool:
    """Return whether the group is its owner's private group, as most distributions make one.

    It is not private if it is another user's primary group, which `gr_mem` does not show. Users of
    a directory service that lists none (sssd with `enumerate = false`, the default) cannot be seen
    here: with such a service, remove the group's write permission.
    """
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    names = (owner.pw_gid, owner.pw_name)
    if names != (group.gr_gid, group.gr_name) or set(group.gr_mem) - {owner.pw_name}:
        return False
    ours = {0, found.st_uid, os.geteuid()}
    if any(user.pw_gid == group.gr_gid and user.pw_uid not in ours for user in pwd.getpwall()):
        return False
    try:
        return _ACL not in os.listxattr(f"/proc/self/fd/{step}")
    except OSError as exc:
        return exc.errno == errno.ENOTSUP


def _check_ours(step: int, where: Path) -> None:
    found = os.fstat(step)
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"{where} belongs to another user, {user_text(found.st_uid)}. Choose a folder of your"
            " own, or run this as that user"
        )
    if _may_others_write(step, found):
        raise ConfigError(
            f"Other users can write in {where}. Choose a folder of your own, or run:"
            f" chmod go-w {where}"
        )


def _check_replaceable(path: Path, parent: int) -> None:
    try:
        found = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{path} exists and is not a file of yours; choose another")


def _write(parent: int, name: str, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=parent)
    try:
        with os.fdopen(fd, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(fd)
    except BaseException:
        os.unlink(name, dir_fd=parent)
        raise
