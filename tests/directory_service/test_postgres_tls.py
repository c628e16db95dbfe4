"""A database on another machine is reached over verified TLS, or not at all."""

import datetime
import os
import secrets
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from directory_service.postgres import open_postgres
from directory_service.storage import Storage
from node.errors import ConfigError
from tests.support.postgres import Postgres, running_postgres

KEY = bytes(32)
HOST = "db.example.org"
BASE = f"postgresql://emix@{HOST}/emix"


@pytest.mark.parametrize(
    "url",
    [
        BASE,
        f"{BASE}?sslmode=require",
        f"{BASE}?sslmode=verify-ca",  # of whom?
        f"{BASE}?sslmode=verify-ca&sslrootcert=system",  # of anybody
        "postgresql://emix@192.0.2.1/emix",
        "postgresql://emix@localhost/emix?hostaddr=192.0.2.1",
        f"postgresql://emix@127.0.0.1,{HOST}/emix",
        "postgresql://emix@/emix?service=elsewhere",
    ],
)
async def test_database_elsewhere_without_verified_tls_is_refused_before_it_is_asked(
    url: str,
) -> None:
    with pytest.raises(ConfigError, match="sslmode=verify-full"):
        await open_postgres(url, KEY)


async def test_address_from_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", HOST)
    with pytest.raises(ConfigError, match="sslmode=verify-full"):
        await open_postgres("postgresql://emix@/emix", KEY)


def make_certificate(folder: Path, name: str) -> Path:
    """Write a certificate for a name, that signed itself, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = path.with_suffix(".key")
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    secret.chmod(0o600)
    return path


def turn_on_tls(server: Postgres, certificate: Path) -> None:
    """Have the server show a certificate from its next start on."""
    owner = (server.folder / "data").stat()
    for name, source in (("tls.pem", certificate), ("tls.key", certificate.with_suffix(".key"))):
        path = server.folder / name
        path.write_bytes(source.read_bytes())
        path.chmod(0o600)
        os.chown(path, owner.st_uid, -1)
    files = (f"ssl_cert_file={server.folder}/tls.pem", f"ssl_key_file={server.folder}/tls.key")
    server.settings = ["ssl=on", *files]
    server.stop()
    server.start()


async def test_database_is_used_over_tls_whose_certificate_is_right_and_no_other(
    tmp_path: Path,
) -> None:
    right, other = (make_certificate(tmp_path, name) for name in (HOST, "other.example.org"))
    with running_postgres(Path("/tmp") / f"emix-postgres-{secrets.token_hex(4)}") as server:
        # By its name it is elsewhere, and the way to it leads here.
        base = f"postgresql://emix@{HOST}:{server.port}/postgres?hostaddr=127.0.0.1"
        verified = f"{base}&sslmode=verify-full&sslrootcert="
        with pytest.raises(ConfigError, match="SSL"):  # it has none
            await open_postgres(f"{verified}{right}", KEY)
        turn_on_tls(server, right)
        engine = await open_postgres(f"{verified}{right}", KEY)
        assert await Storage(engine).latest_list() is None
        await engine.aclose()
        with pytest.raises(ConfigError, match="certificate"):
            await open_postgres(f"{verified}{other}", KEY)
        turn_on_tls(server, other)
        with pytest.raises(ConfigError, match="certificate"):  # of another server
            await open_postgres(f"{verified}{other}", KEY)
