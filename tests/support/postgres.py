"""A real PostgreSQL, Debian's: run by an unprivileged user, in a folder of its own."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.nodes import free_port

_START_SECONDS = 30


class Postgres:
    """A database cluster and its server."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._binaries = binaries
        self._data = folder / "data"
        # PostgreSQL refuses root; whoever else runs the tests is good enough. By a program, since
        # Python would fork for another user, and gRPC's threads do not survive that.
        self._as_user: tuple[str, ...] = ()
        self.settings: list[str] = []  # as "name=value", for the next start
        folder.mkdir(mode=0o700)
        if os.getuid() == 0:
            user = pwd.getpwnam("nobody")
            ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}")
            self._as_user = ("setpriv", *ids, "--clear-groups")
            os.chown(folder, user.pw_uid, -1)
        # An encoding that lets any bytes through, as some systems' default is.
        encoding = ("--encoding", "SQL_ASCII", "--locale", "C")
        options = ("-A", "trust", "-U", "emix", "--no-sync", *encoding, "-D", str(self._data))
        self._run("initdb", *options)

    @property
    def url(self) -> str:
        """How to connect."""
        return f"postgresql://emix@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        options += "".join(f" -c {setting}" for setting in self.settings)
        log = str(self.folder / "log")
        arguments = ("-D", str(self._data), "-o", options, "-l", log, "-w")
        self._run("pg_ctl", "start", *arguments, "-t", str(_START_SECONDS))

    def stop(self) -> None:
        """Stop it at once, as a machine that goes away would."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-D", str(self._data), "-m", "immediate", "-w")

    def freeze(self) -> None:
        """Stop the server from answering, its connections left open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        leader = int((self._data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(
            ["pgrep", "-P", str(leader)], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in (leader, *map(int, children)):
            os.kill(pid, number)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_user, self._binaries / program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=program == "initdb",
            cwd="/",
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stderr!r}"


@contextmanager
def running_postgres(folder: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL for the time of the block; skip where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    plain = shutil.which("initdb")
    initdb = found[-1] if found else Path(plain).resolve() if plain else None
    if initdb is None:
        assert not os.environ.get("CI"), "CI needs the system package postgresql"
        pytest.skip("needs the system package postgresql")
    server = Postgres(folder, initdb.parent)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
