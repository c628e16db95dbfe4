"""The peers that we measure ourselves against, each as a user would run it at its best."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.long_line import LongLine
from tests.support.nodes import free_port

ROOT = Path(__file__).parent
QUIET = subprocess.DEVNULL


def _run(command: list[str], **options: object) -> None:
    subprocess.run(command, check=True, stdout=QUIET, stderr=QUIET, **options)  # type: ignore[call-overload]


@contextmanager
def _served(command: list[str], **options: object) -> Iterator[None]:
    """Run a server for the time of the block, given two seconds to come up."""
    process = subprocess.Popen(command, stdout=QUIET, stderr=QUIET, **options)  # type: ignore[call-overload]
    try:
        time.sleep(2)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def storescu(folder: Path, study: Path) -> Iterator[Callable[[], float]]:
    """DCMTK's storescu to storescp over TLS, 128 KiB PDUs, TCP_NODELAY by preload."""
    library = folder / "nodelay.so"
    _run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(ROOT / "nodelay.c"), "-ldl"])
    key, cert = folder / "dcmtk.key", folder / "dcmtk.crt"
    _run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)]
    )  # fmt: skip
    tls = ["--max-pdu", "131072", "+tls", str(key), str(cert), "+cf", str(cert)]
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    out, port = folder / "storescp", str(free_port())

    def once() -> float:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        with _served(["storescp", port, *tls, "-od", str(out)], env=environment):
            send = ["storescu", "localhost", port, *tls, "+sd", str(study)]
            seconds = _timed(lambda: _run(send, env=environment))
        _hold_count(out, study)
        return seconds

    yield once


Once = Callable[[], float]


@contextmanager
def rsync_ssh(
    folder: Path, study: Path, *, options: str = "-a", line: LongLine | None = None
) -> Iterator[tuple[Once, int]]:
    """Rsync over ssh to an sshd of our own, on the loopback or at the far end of a line.

    Yields what does it once, and the port of the sshd.
    """
    host = line.hosts[1] if line else "127.0.0.1"
    near, far = (line.prefix(0), line.prefix(1)) if line else ([], [])
    host_key, user_key, port = folder / "host_key", folder / "user_key", free_port()
    for key in (host_key, user_key):
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    authorized = folder / "authorized_keys"
    shutil.copy(user_key.with_suffix(".pub"), authorized)
    Path("/run/sshd").mkdir(exist_ok=True)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {host}\nHostKey {host_key}\nStrictModes no\n"
        f"AuthorizedKeysFile {authorized}\nPermitRootLogin yes\nUsePAM no\n"
    )
    shell = (
        f"ssh -p {port} -i {user_key} -o StrictHostKeyChecking=no"
        f" -o UserKnownHostsFile={folder / 'known_hosts'} -o LogLevel=ERROR"
    )
    out = folder / "rsync"

    def once() -> float:
        shutil.rmtree(out, ignore_errors=True)
        seconds = _timed(
            lambda: _run([*near, "rsync", options, "-e", shell, f"{study}/", f"{host}:{out}/"])
        )
        _hold_count(out, study)
        return seconds

    with _served([*far, "/usr/sbin/sshd", "-D", "-f", str(config)]):
        yield once, port


class Orthanc:
    """One Orthanc server."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port, self.dicom_port = free_port(), free_port()
        self.folder = folder / f"orthanc-{name}"
        self.url = f"http://127.0.0.1:{self.port}"
        self.peers: dict[str, list[str]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it for the time of the block, with an empty store."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        config = self.folder / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(self.folder / "db"),
                    "HttpPort": self.port,
                    "DicomPort": self.dicom_port,
                    "AuthenticationEnabled": False,
                    "RemoteAccessAllowed": False,
                    "OrthancPeers": self.peers,
                    "Plugins": [],
                }
            )
        )
        with _served(["Orthanc", str(config)]):
            for _ in range(100):
                try:
                    self.call("/system")
                    break
                except OSError:
                    time.sleep(0.1)
            yield

    def call(self, path: str, body: bytes | None = None) -> bytes:
        """Call its REST interface."""
        with urllib.request.urlopen(f"{self.url}{path}", body, timeout=300) as response:  # noqa: S310  # loopback
            answer: bytes = response.read()
            return answer

    def import_all(self, study: Path) -> None:
        """Upload every file of a study, four at a time."""
        with ThreadPoolExecutor(4) as pool:
            files = sorted(study.iterdir())
            list(pool.map(lambda path: self.call("/instances", path.read_bytes()), files))


@contextmanager
def orthanc_import(folder: Path, study: Path) -> Iterator[Callable[[], float]]:
    """Orthanc's import over REST, four threads, its store unencrypted."""
    server = Orthanc(folder, "import")

    def once() -> float:
        with server.running():
            return _timed(lambda: server.import_all(study))

    yield once


@contextmanager
def orthanc_peer(folder: Path, study: Path) -> Iterator[Callable[[], float]]:
    """Orthanc to Orthanc: peer store over HTTP without TLS, stores unencrypted."""
    a, b = Orthanc(folder, "a"), Orthanc(folder, "b")
    a.peers = {"B": [b.url]}

    def once() -> float:
        with b.running(), a.running():
            a.import_all(study)
            studies = json.loads(a.call("/studies"))
            order = json.dumps({"Resources": studies, "Synchronous": True}).encode()
            return _timed(lambda: _ignore(a.call("/peers/B/store", order)))

    yield once


@contextmanager
def borg_create(folder: Path, study: Path) -> Iterator[Callable[[], float]]:
    """`borg create` into an encrypted repository (repokey-blake2, lz4)."""
    borg = _Borg(folder / "borg-create", study)

    def once() -> float:
        borg.make()
        return _timed(borg.create)

    yield once


@contextmanager
def borg_extract(folder: Path, study: Path) -> Iterator[Callable[[], float]]:
    """`borg extract` of the same."""
    borg = _Borg(folder / "borg-extract", study)
    borg.make()
    borg.create()
    out = folder / "borg-out"

    def once() -> float:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return _timed(lambda: borg.extract(out))

    yield once


class _Borg:
    def __init__(self, repository: Path, study: Path) -> None:
        self._repository, self._study = repository, study
        self._environment = {
            **os.environ,
            "BORG_PASSPHRASE": "bench",
            "BORG_BASE_DIR": str(repository.with_name("borg-base")),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def _borg(self, *arguments: str, cwd: Path | None = None) -> None:
        _run(["borg", *arguments], env=self._environment, cwd=cwd)

    def make(self) -> None:
        shutil.rmtree(self._repository, ignore_errors=True)
        self._borg("init", "-e", "repokey-blake2", str(self._repository))

    def create(self) -> None:
        self._borg("create", "-C", "lz4", f"{self._repository}::x", ".", cwd=self._study)

    def extract(self, out: Path) -> None:
        self._borg("extract", f"{self._repository}::x", cwd=out)


def _ignore(_: object) -> None:
    return


def _hold_count(out: Path, study: Path) -> None:
    found, wanted = len(list(out.iterdir())), len(list(study.iterdir()))
    if found != wanted:
        raise AssertionError(f"the peer received {found} of {wanted} files")
