"""A client of an object store: timeouts, credentials, and the meaning of errors.

botocore signs, retries and reads. It is prevented from starting processes and from reading a user's
settings: credentials come from a configured file, from the environment, or from the role of the
machine or service.
"""

import configparser
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    ReadOnlyCredentials,
    create_credential_resolver,
)
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.parsers import ResponseParserError

from node.chunks.places import S3Place
from node.chunks.storage import Requests
from node.domain.display_text import plain_text
from node.errors import ConfigError, StoreAway, StoreDenied, StoreError, StoreFull
from node.system import safe_paths

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 20, 4
"""A call that nobody answers ends after about a minute and a half."""

_CONNECTIONS = 48  # as many worker threads as there may be
_MOST_CREDENTIALS = 16 * 1024
_ROLES = ("env", "assume-role-with-web-identity", "container-role", "iam-role")
_CODE = re.compile(r"[A-Za-z0-9]{1,64}")
_FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507")
_OLD = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId")
_RENEWAL_TRIES, _RENEWAL_SECONDS = 3, 1.0


class S3Client:
    """Calls of one object store. Blocking: on worker threads, by several at once."""

    def __init__(self, place: S3Place, credentials_file: str = "") -> None:
        """Prepare; nothing is asked yet.

        Raises:
            ConfigError: botocore does not take the environment's settings.
        """
        self._counting = threading.Lock()
        self._requests: dict[tuple[str, str], Requests] = {}
        session = botocore.session.Session()
        for name in ("config_file", "credentials_file"):
            session.set_config_variable(name, os.devnull)
        try:
            provided = create_credential_resolver(session).providers
            own: list[Any] = [_FileProvider(Path(credentials_file))]
            roles = [one for one in provided if one.METHOD in _ROLES]
            resolver = CredentialResolver(own if credentials_file else roles)
            session.register_component("credential_provider", resolver)
            self._client = session.create_client(
                "s3",
                region_name=place.region,
                endpoint_url=place.endpoint or None,
                config=_config(place),
            )
        except (BotoCoreError, ValueError) as exc:
            raise ConfigError(f"no client for the object store can be made: {exc}") from exc

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def call(self, operation: str, **arguments: Any) -> Any:
        """Return the answer to a call.

        Credentials that have just ended are waited for a little: somebody may be replacing them.

        Raises:
            NoSuchObject: the server says that the object (or its bucket) is not there.
            StoreFull, StoreDenied, StoreAway, StoreError: see `ChunkStorage`.
        """
        begun, outcome = time.monotonic(), "failed"
        try:
            answer = self._call(operation, **arguments)
            outcome = "ok"
            return answer
        except NoSuchObject:
            outcome = "not there"
            raise
        finally:
            self._count(operation, outcome, time.monotonic() - begun)

    def _call(self, operation: str, **arguments: Any) -> Any:
        for tries_left in reversed(range(_RENEWAL_TRIES)):
            try:
                return getattr(self._client, operation)(**arguments)
            except ClientError as exc:
                if tries_left and _code(exc) in (*_OLD, "403"):  # an answer to HEAD has no code
                    time.sleep(_RENEWAL_SECONDS)
                    continue
                raise _translated(exc) from exc
            except NoCredentialsError as exc:
                raise StoreDenied(
                    "there are no credentials for the object store: name a file in emix.toml"
                    " ([store] chunks_credentials), set AWS_ACCESS_KEY_ID and"
                    " AWS_SECRET_ACCESS_KEY, or give the machine a role"
                ) from exc
            except ConfigError as exc:
                raise StoreDenied(str(exc)) from exc
            except (BotoCoreError, ResponseParserError) as exc:
                raise away(exc) from exc
        raise AssertionError

    def requests(self) -> dict[tuple[str, str], Requests]:
        """Return what was asked since the start, by operation and outcome."""
        with self._counting:
            return dict(self._requests)

    def _count(self, operation: str, outcome: str, seconds: float) -> None:
        with self._counting:
            before = self._requests.get((operation, outcome), Requests())
            self._requests[operation, outcome] = before + Requests(1, seconds)


class NoSuchObject(StoreError):
    """The server knows no such object."""


def away(exc: Exception) -> StoreAway:
    """Return the error for a server that does not answer, or not as an object store does."""
    return StoreAway(f"the object store does not answer ({type(exc).__name__}); try again later")


def _config(place: S3Place) -> Config:
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        user_agent_extra="emix",
        ignore_configured_endpoint_urls=True,
        # The server checks what arrives against the signature, too.
        s3={
            "payload_signing_enabled": True,
            "addressing_style": "path" if place.endpoint else "auto",
        },
    )


def _code(exc: ClientError) -> str:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    return code if _CODE.fullmatch(code) else "an odd answer"


def _translated(exc: ClientError) -> StoreError:
    code = _code(exc)
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _FULL or status == 507:
        return StoreFull("the object store has no room; free space there, or raise its quota")
    if code == "NoSuchBucket":
        return StoreError("the bucket for chunks does not exist; check [store] chunks in emix.toml")
    if status == 404:
        return NoSuchObject("the object store has no such object")
    if code == "RequestTimeTooSkewed":
        return StoreDenied(
            "the clocks of the object store and this machine differ: correct the wrong one"
        )
    if status in (401, 403) or code in _OLD:
        return StoreDenied(
            f"the object store refuses this node ({code}): renew its credentials, or give them"
            " the right to get, put, delete and list"
        )
    if status >= 500 or status == 429:
        return StoreAway(f"the object store fails ({code}); try again later")
    return StoreError(f"the object store refused a request ({code})")


class _FileProvider(CredentialProvider):  # type: ignore[misc]
    METHOD = "emix-file"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load(self) -> Credentials:
        return _FileCredentials(self._path)


class _FileCredentials(Credentials):  # type: ignore[misc]
    """Credentials in a file that only its owner may read; each call takes what it says then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, ...] = ()
        found = self.get_frozen_credentials()
        super().__init__(found.access_key, found.secret_key, found.token, method="emix-file")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        try:
            found = self._path.stat()
            at = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)
            if at != self._read_at:
                self._found = read_credentials(self._path)
                self._read_at = at
        except OSError as exc:
            raise ConfigError(f"{self._path}, the credentials, cannot be read") from exc
        return self._found


def read_credentials(path: Path) -> ReadOnlyCredentials:
    """Return the credentials in a file, `[default]` as AWS's own tools write it.

    Raises:
        ConfigError: it cannot be read, has none, or others can read it too.
    """
    try:
        is_open = path.stat().st_mode & 0o077
        text = plain_text(safe_paths.read_file(path, _MOST_CREDENTIALS))
        file = configparser.ConfigParser(interpolation=None)
        file.read_string(text)
        section = file["default"]
        keys = (section["aws_access_key_id"], section["aws_secret_access_key"])
        token = section.get("aws_session_token") or None
    except OSError as exc:
        raise ConfigError(f"{path}, the credentials, cannot be read") from exc
    except (configparser.Error, KeyError, ValueError):
        raise ConfigError(
            f"{path} must hold [default], aws_access_key_id = … and aws_secret_access_key = …"
        ) from None  # its cause could show what is in the file
    if is_open:
        raise ConfigError(f"others can read {path}, the credentials: chmod 600 {path}")
    return ReadOnlyCredentials(*keys, token)
