"""One process in a home at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.errors import ConfigError, StoreLocked
from node.system import safe_paths


@contextmanager
def locked(home: Path, name: str) -> Iterator[None]:
    """Lock a home for this process; the kernel releases the lock when the process ends.

    Raises:
        StoreLocked: another process holds it.
        ConfigError: this user may not use the home, or another user can change its path.
    """
    safe_paths.check_user(home)
    try:
        with safe_paths.folder(home, is_ours=True) as (folder, _):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as exc:
        why = safe_paths.denial(home / name) or exc.strerror
        raise ConfigError(f"{home} cannot be used: {why}") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StoreLocked(f"another process is using {home}") from exc
        yield
    finally:
        os.close(fd)
