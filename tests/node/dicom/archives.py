"""Making archives and disc images for tests."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping

import pycdlib


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(members: Mapping[str, bytes], *, is_packed: bool = False) -> bytes:
    """Return a tar, in gzip's form if packed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(out.getvalue()) if is_packed else out.getvalue()


def imaged(members: Mapping[str, bytes], *, joliet: bool = False, udf: bool = False) -> bytes:
    """Return a disc image; names are of ISO 9660, and may have one folder."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=1, joliet=3 if joliet else None, udf="2.60" if udf else None)
    for folder in {name.rpartition("/")[0] for name in members} - {""}:
        paths = (f"/{folder}" if joliet else None, f"/{folder}" if udf else None)
        image.add_directory(f"/{folder}", joliet_path=paths[0], udf_path=paths[1])
    for name, content in members.items():
        paths = (f"/{name}" if joliet else None, f"/{name}" if udf else None)
        handle = io.BytesIO(content)
        image.add_fp(handle, len(content), f"/{name}.;1", joliet_path=paths[0], udf_path=paths[1])
    out = io.BytesIO()
    image.write_fp(out)
    image.close()
    return out.getvalue()


def deflate64(members: Mapping[str, bytes]) -> bytes:
    """Return a ZIP as Windows makes it above 2 GB; of literals, both deflates are the same."""
    body = central = b""
    for name, content in members.items():
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        packed = packer.compress(content) + packer.flush()
        sizes = (zlib.crc32(content), len(packed), len(content), len(name), 0)
        common = struct.pack("<HHHHHIIIHH", 21, 0, 9, 0, 0x5C21, *sizes)
        place = struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        central += b"PK\1\2" + struct.pack("<H", 21) + common + place + name.encode()
        body += b"PK\3\4" + common + name.encode() + packed
    count = len(members)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(central), len(body), 0)
    return body + central + end


def claiming(sizes: Mapping[str, int]) -> bytes:
    """Return a ZIP of encrypted files, without bytes, that are said to be of some sizes."""
    central = b""
    for name, size in sizes.items():
        extra = struct.pack("<HHQ", 1, 8, size)  # of ZIP64
        head = struct.pack("<HHHHHHIII", 45, 45, 1, 0, 0, 0x5C21, 0, 0, 0xFFFFFFFF)
        rest = struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, 0)
        central += b"PK\1\2" + head + rest + name.encode() + extra
    count = len(sizes)
    body = b"PK\3\4" + bytes(26)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(central), len(body), 0)
    return body + central + end
