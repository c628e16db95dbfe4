"""Moves chunks to the place in the settings, while the node serves."""

from collections.abc import Awaitable, Callable, Iterable

import structlog
import trio

from node.chunks.moving import MovingChunkStorage
from node.chunks.storage import ChunkStorage
from node.domain.findings import Finding
from node.domain.ids import ChunkId
from node.errors import StoreError

_AGAIN_SECONDS = 60.0

log = structlog.get_logger()


async def move_chunks(
    storage: ChunkStorage,
    named: Callable[[], Iterable[ChunkId]],
    record: Callable[[str, dict[str, object]], Awaitable[object]],
) -> None:
    """Move all that has not moved yet, if the settings say so; then record it.

    A place that fails is tried again every minute, for ever.

    Args:
        storage: Where chunks are, and were.
        named: Returns the chunks that are to be here; read on a worker thread.
        record: Writes an entry of the audit log.

    Cancellation:
        Takes effect at the end of a batch; the next start continues.
    """
    if not isinstance(storage, MovingChunkStorage):
        return
    log.info("chunks are moving")
    while not storage.is_done:
        try:
            if not await trio.to_thread.run_sync(storage.move_some):
                await trio.to_thread.run_sync(lambda: storage.move_left_out(named()))
        except StoreError as exc:
            log.warning("chunks could not be moved; will retry", code=exc.code.value)
            await trio.sleep(_AGAIN_SECONDS)
    log.info("chunks have moved", chunks=storage.moved)
    if storage.moved:
        facts: dict[str, object] = {"chunks": storage.moved, "to": storage.where() or "home"}
        await record("store.chunks-moved", facts)


def moving_finding(storage: ChunkStorage) -> list[Finding]:
    """Return the doctor's finding about moving chunks; none if they are not moving."""
    if not isinstance(storage, MovingChunkStorage):
        return []
    to = storage.where() or "the home"
    if storage.is_done:
        advice = "empty [store] chunks_before in emix.toml"
        return [Finding("moving chunks", "warning", f"all chunks are in {to}", advice)]
    text = f"{storage.moved} chunks have moved to {to} since the start; the move continues"
    return [Finding("moving chunks", "ok", text)]
