"""Packages with attachments, put into a store as whatever brings reports will."""

from collections.abc import AsyncIterator, Sequence

import trio

from node.crypto.digests import digest
from node.dicom.examine import examine_bytes
from node.domain.actors import NODE
from node.domain.packages import Package
from node.store.context import StoreContext
from node.store.imports import ImportStore
from tests.support.dicom_files import make_instance, study_uid

WINDOW = 2**20
REPORT = b"%PDF-1.7 nothing found. " * 40
LARGE = bytes(range(256)) * (36 * 1024)  # nine MiB: several windows, each a chunk of its own


async def _windows(content: bytes) -> AsyncIterator[bytes]:
    for i in range(0, len(content), WINDOW):
        await trio.lowlevel.checkpoint()
        yield content[i : i + WINDOW]


async def put_package(
    context: StoreContext,
    study: int,
    attachments: Sequence[tuple[str, bytes, Sequence[str]]],
    *,
    instances: int = 2,
) -> Package:
    """Close a package of a study with attachments: media type, bytes, what they are about."""
    store = ImportStore(context)
    async with trio.open_nursery() as nursery:
        writer = await store.open_package(study_uid(study), nursery)
        for number in range(1, instances + 1):
            content = make_instance(study, number)
            await writer.add(examine_bytes(content), digest(content), content)
            if number == 1:  # what follows an attachment lies apart from it
                for media_type, attached, about in attachments:
                    await writer.attach(media_type, _windows(attached), about)
        if not instances:
            for media_type, attached, about in attachments:
                await writer.attach(media_type, _windows(attached), about)
        await writer.flush()
    (package,) = (await store.close_packages([writer.row_id], NODE)).values()
    return package
