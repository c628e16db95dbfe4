"""Repairing a home in which no node runs: rows rebuilt from envelopes, indexed by the parsers."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import trio

from node.app.config import Config, load_config
from node.app.expanding import ParserExpander
from node.app.home import Home, Unlocked, unlock
from node.app.opening import open_home_store
from node.dicom.examiner import Examiner, open_examiner
from node.errors import ungrouped
from node.store.repair import Repaired, repair
from node.system.memory import tune_memory
from node.telemetry.logs import configure_logs


def repair_home(home: Home, passphrase: bytes | None) -> list[Repaired]:
    """Rebuild rows from envelopes, in a home in which no node runs.

    Raises:
        NodeError: the home is in use, or its keys do not open.
    """
    tune_memory()
    config = load_config(home.config)
    configure_logs(config.log_level)
    with home.locked(), ungrouped():
        unlocked = unlock(home, passphrase)
        return trio.run(_repair, home, config, unlocked)


async def _repair(home: Home, config: Config, unlocked: Unlocked) -> list[Repaired]:
    async with open_examiner(parsers=1, required=config.required_layers) as examiner:
        expander = ParserExpander(examiner)
        context = open_home_store(home, config, unlocked, expander=expander, may_be_lost=True)
        try:
            return await repair(context, _Indexer(examiner))
        finally:
            context.close()


class _Indexer:
    """See `node.store.repair.Indexer`."""

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner

    async def whole(
        self, plaintext: bytes, places: Sequence[tuple[int, int]]
    ) -> Sequence[Mapping[str, str]]:
        async with self._examiner.arena.slab() as slab:
            slab.write(0, plaintext)
            found = await self._examiner.examine_files(slab, places)
        return [examined.index for examined in found]

    async def beginning(self, size: int, windows: AsyncGenerator[bytes]) -> Mapping[str, str]:
        index: dict[str, str] = {}
        async with self._examiner.large(size) as examination, aclosing(windows):
            async for window in windows:
                index = (await examination.feed(window, is_last=False)).index
                if index:
                    break
        return index
