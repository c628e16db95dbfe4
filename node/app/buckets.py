"""Buckets for chunks, as the settings name them; the S3 client is loaded only if one is named."""

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from node.app.config import Config
from node.app.home import Home
from node.chunks.places import S3Place
from node.crypto.keyring import RootKey
from node.errors import ConfigError

if TYPE_CHECKING:
    from node.chunks.s3 import S3ChunkStorage

_MIB = 2**20


def claim_place(home: Home, config: Config, root_key: RootKey) -> None:
    """Claim the bucket for chunks that the settings name, if any, for this node.

    Raises:
        ConfigError: the bucket cannot be used with these settings.
        StoreError: the bucket is claimed by another node, or does not answer.
    """
    if config.chunks:
        with closing(open_bucket(home, config, root_key, config.chunks)) as storage:
            storage.claim()


def check_chunk_credentials(config: Config) -> None:
    """Check the credentials file for chunks, if the settings name one.

    Raises:
        ConfigError: it cannot be read, has no credentials, or other users can read it.
    """
    if config.chunks_credentials:
        check_installed()
        from node.chunks.s3_client import read_credentials

        read_credentials(Path(config.chunks_credentials))


def check_installed() -> None:
    """Check that the S3 client is installed, without loading it."""
    if find_spec("botocore") is None:
        raise ConfigError("chunks in an object store need an extra: pip install 'emix[s3]'")


def open_bucket(home: Home, config: Config, root_key: RootKey, text: str) -> "S3ChunkStorage":
    """Return the storage in a bucket; nothing is asked of it yet.

    Raises:
        ConfigError: what speaks S3 is not installed, or no client can be made for the place.
    """
    check_installed()
    from node.chunks.s3 import S3ChunkStorage

    return S3ChunkStorage(
        S3Place.parse(text),
        root_key.storage_owner(),
        home.root,
        config.reserve_mib * _MIB,
        config.chunks_credentials,
    )
