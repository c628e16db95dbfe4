"""A real object store for demo and tests: SeaweedFS on loopback, with one bucket."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from node.chunks.places import S3Place
from node.chunks.s3_client import S3Client
from node.errors import StoreError
from tests.support.nodes import free_port

BUCKET = "chunks"
_START_SECONDS = 60


@dataclass
class Seaweed:
    """A running server.

    Attributes:
        endpoint: Where it is.
        credentials: A file with credentials that it takes.
        process: The server, for what may happen to it.
    """

    endpoint: str
    credentials: Path
    process: subprocess.Popen[bytes]

    def text(self, prefix: str) -> str:
        """Return a place in its bucket, as a person writes it."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}"

    def options(self, prefix: str) -> list[str]:
        """Return the options of `init` for a node that keeps its chunks there."""
        return ["--chunks", self.text(prefix), "--chunks-credentials", str(self.credentials)]

    @cached_property
    def client(self) -> S3Client:
        """A client of our own, for what happens behind a storage's back."""
        return S3Client(S3Place.parse(self.text("x")), str(self.credentials))


def write_credentials(path: Path, access_key: str, secret_key: str) -> Path:
    """Write a file of credentials that only its owner may read; replaced at once."""
    text = f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.rename(path)
    return path


@contextmanager
def seaweed(folder: Path, *, volumes: int = 8) -> Iterator[Seaweed]:
    """Run a server for the time of the block, with room for so many volumes of 64 MB.

    What is deleted gives no room back: it vacuums later.
    """
    (folder / "data").mkdir()
    identity = {
        "name": "node",
        "credentials": [{"accessKey": "key-of-tests", "secretKey": "secret-of-tests"}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    names = ("master", "volume", "filer", "s3")
    ports = {name: free_port() for name in names}
    inner = [f"-{name}.port.grpc={free_port()}" for name in names]
    command = [str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "server"]
    command += [f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [*(f"-{name}.port={port}" for name, port in ports.items()), *inner]
    command += ["-filer", "-s3", f"-s3.config={config}", "-s3.autoCreateBucket=false"]
    command += [
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
    ]
    command += [
        f"-volume.max={volumes}",
        "-master.volumeSizeLimitMB=64",
        "-volume.preStopSeconds=0",
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            server = Seaweed(
                f"http://127.0.0.1:{ports['s3']}",
                write_credentials(folder / "credentials", "key-of-tests", "secret-of-tests"),
                process,
            )
            _make_bucket(server, ports["master"], process)
            try:
                yield server
            finally:
                server.client.close()
        finally:
            process.kill()
            process.wait()


def _make_bucket(server: Seaweed, master: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server takes an object, which is later than it answers."""
    client, pause, error = server.client, threading.Event(), None
    for _ in range(_START_SECONDS * 5):
        if process.poll() is not None:
            break
        try:
            with urlopen(f"http://127.0.0.1:{master}/vol/grow?collection={BUCKET}&count=1"):
                pass
            client.call("create_bucket", Bucket=BUCKET)
            client.call("put_object", Bucket=BUCKET, Key="begun", Body=b"begun")
        except (OSError, StoreError) as exc:
            if isinstance(exc, HTTPError):
                exc.close()
            error = exc
            pause.wait(0.2)
        else:
            return
    raise AssertionError("SeaweedFS does not serve") from error
