"""Archives and packages that expand to far more than they are."""

import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

from node.crypto.digests import digest
from node.documents.identity import Identity
from node.documents.manifest import open_manifest, sign_manifest
from node.domain.ids import ChunkId
from node.domain.manifest import MAX_CHUNK_BYTES, ChunkEntry, Extent
from tests.support.hostile import Forgery, HostilePeer, forge

_SEALED_BYTES = 105  # what a chunk of zeroes takes


def package_of_zeroes(peer: HostilePeer, identity: Identity, study: int, gib: int) -> Forgery:
    """Return a package of one huge instance, rightly signed, in chunks as small as any are."""
    forged = forge(peer, identity, study)
    count = gib * 2**30 // MAX_CHUNK_BYTES
    chunks = tuple(
        ChunkEntry(
            n,
            ChunkId(digest(b"%d of %d" % (n, study))),
            MAX_CHUNK_BYTES,
            _SEALED_BYTES,
            digest(bytes(8)),
        )
        for n in range(count)
    )
    manifest = open_manifest(forged.manifest)
    instance = replace(
        manifest.instances[0],
        size_bytes=count * MAX_CHUNK_BYTES,
        extents=tuple(Extent(n, 0, MAX_CHUNK_BYTES) for n in range(count)),
    )
    manifest = replace(manifest, instances=(instance,), chunks=chunks)
    document = sign_manifest(manifest, peer.keys.signer)
    return replace(forged, manifest=document).redelivered(
        manifest_digest=document.digest(),
        manifest_bytes=len(document.encode()),
        sealed_bytes=manifest.sealed_bytes,
    )


def zip_of_many(path: Path, entries: int, *, told: int) -> None:
    """Write a ZIP whose directory has many empty entries; its end record tells any number.

    Written by hand: zipfile would take longer than what is tested.
    """
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"x"
    fields = (20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *fields) + b"x"
    directory = entry * entries
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, told, told, len(directory), len(local), 0)
    path.write_bytes(local + directory + end)


def zip_of_one_kernel(path: Path, entries: int, size: int) -> None:
    """Write a ZIP whose entries are all the same few bytes, which expand to much."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    noise = bytes(range(256)) * 16
    content = (noise + bytes(100 * 256))[: size // 256 * 256]
    kernel = deflater.compress(content) + deflater.flush()
    crc = zlib.crc32(content)
    fields = (20, 0, zipfile.ZIP_DEFLATED, 0, 0, crc, len(kernel), len(content), 1, 0)
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", *fields) + b"x" + kernel
    entry = (
        struct.pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            20, 20, 0, zipfile.ZIP_DEFLATED, 0, 0, crc, len(kernel), len(content),
            1, 0, 0, 0, 0, 0, 0,
        )
        + b"x"
    )  # fmt: skip
    directory = entry * entries
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, len(directory), len(local), 0
    )
    path.write_bytes(local + directory + end)
