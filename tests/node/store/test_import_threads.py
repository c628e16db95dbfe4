"""Which packages are in use is known in trio's thread, and asked for nowhere else."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from node.dicom.examiner import open_examiner
from node.store.imports import ImportStore
from tests.node.store.test_import_resumes import Cut, CutImportStore, make_store, run_import
from tests.support.dicom_files import write_study


class Watched(set[Any]):
    """A set that notes which threads look into it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def __contains__(self, value: object) -> bool:
        self.threads.add(threading.get_ident())
        return super().__contains__(value)


async def test_packages_in_use_are_looked_up_in_one_thread(tmp_path: Path) -> None:
    context = make_store(tmp_path)
    try:
        folder = write_study(tmp_path / "s", 1, 3)
        async with open_examiner(parsers=1) as examiner:
            with suppress(Cut):
                await run_import(CutImportStore(context), examiner, folder)
            store, watched = ImportStore(context), Watched()
            store._in_use = watched
            write_study(folder, 1, 5)
            await run_import(store, examiner, folder)
        assert watched.threads == {threading.get_ident()}
    finally:
        context.close()
