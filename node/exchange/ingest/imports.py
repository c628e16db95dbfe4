"""The use case of import: makes import jobs."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from node.domain.actors import Actor
from node.domain.events import Publish
from node.exchange.ingest.intake import Intake
from node.exchange.ingest.job import ImportJob, Report
from node.exchange.ports import Examiner, ImportStore


class Imports:
    """Makes import jobs."""

    def __init__(self, store: ImportStore, examiner: Examiner, publish: Publish) -> None:
        self._store = store
        self._examiner = examiner
        self._publish = publish

    def job(
        self,
        report: Report,
        actor: Actor,
        *,
        sources: Sequence[str] = (),
        resumes: int = 0,
        wait_room: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> ImportJob:
        """Return a job, to be run once.

        Args:
            report: Is called with progress and findings.
            actor: Who asked.
            sources: What the person named: an import that was cut off goes on with the same.
            resumes: The number of the import that is to go on, if the person named it; else 0.
            wait_room: Returns once the receiver of `report` can take more; awaited per batch.
        """
        intake = Intake(self._store, self._publish, actor, sources=sources, resumes=resumes)
        return ImportJob(intake, self._examiner, report, wait_room=wait_room)
