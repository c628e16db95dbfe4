"""The open studies of an intake, their users, and which of them have been idle.

A study does not close while it has users. A task that needs a study which is closing waits, and
then gets a new, empty one. No operation takes longer the more studies are open.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice

import trio

from node.domain.patients import Patient
from node.exchange.ports import Writer


@dataclass(eq=False, slots=True)
class Taking:
    """An instance that is being taken; the task that takes it sets `is_taken`."""

    is_taken: bool = False
    over: trio.Event = field(default_factory=trio.Event)


@dataclass(eq=False, slots=True)
class OpenStudy:
    """A study that is open or closing.

    Attributes:
        writer: The writer of the package that is being filled, once there is one.
        rows: The packages that close with it.
        late_rows: Packages that were adopted while it closed; they close with the next one.
        instances: The SOP Instance UIDs of its instances.
        patient: Its patient, once known.
        users: How many tasks use it.
        used_time: When it was used last, by trio's clock.
        unused: Set when a user has left.
        closed: Set once it has closed; None until it begins to.
    """

    uid: str
    writer: Writer | None = None
    rows: set[int] = field(default_factory=set)
    late_rows: set[int] = field(default_factory=set)
    instances: set[str] = field(default_factory=set)
    patient: Patient | None = None
    users: int = 0
    used_time: float = 0.0
    unused: trio.Event = field(default_factory=trio.Event)
    closed: trio.Event | None = None
    opening: trio.Lock = field(default_factory=trio.Lock)
    _taking: dict[bytes, Taking] = field(default_factory=dict)
    _taken: set[bytes] = field(default_factory=set)

    @asynccontextmanager
    async def taking(self, digest: bytes) -> AsyncGenerator[Taking | None]:
        """Take an instance for the time of the block; yield None if it was taken before.

        Another task with the same instance waits until the first has finished.
        """
        while digest in self._taking:
            await self._taking[digest].over.wait()
        if digest in self._taken:
            yield None
            return
        taking = self._taking[digest] = Taking()
        try:
            yield taking
        finally:
            if taking.is_taken:
                self._taken.add(digest)
            del self._taking[digest]
            taking.over.set()

    def note_patient(self, patient: Patient) -> None:
        """Note its patient, unless one is known."""
        if self.patient is None:
            self.patient = patient

    async def unused_by_all(self) -> None:
        """Wait until nobody uses it."""
        while self.users:
            self.unused = trio.Event()
            await self.unused.wait()


class OpenStudies:
    """The open studies of an intake, by UID."""

    def __init__(self) -> None:
        self._studies: OrderedDict[str, OpenStudy] = OrderedDict()  # used longest ago first
        self._instances: set[str] = set()  # of all of them
        self._some = trio.Event()

    def all(self) -> Collection[OpenStudy]:
        """Return all that are open or close."""
        return self._studies.values()

    def find(self, uid: str) -> OpenStudy | None:
        """Return one, if it is open or closes."""
        return self._studies.get(uid)

    def get(self, uid: str) -> OpenStudy:
        """Return one that is open or closes; it is opened if it is neither."""
        if uid not in self._studies:
            self._studies[uid] = OpenStudy(uid)
            self._note_use(self._studies[uid])
            self._some.set()
        return self._studies[uid]

    def _note_use(self, study: OpenStudy) -> None:
        study.used_time = trio.current_time()
        self._studies.move_to_end(study.uid)

    @asynccontextmanager
    async def using(self, uid: str) -> AsyncGenerator[OpenStudy]:
        """Keep a study from closing for the time of the block; wait first while it closes."""
        while (study := self.get(uid)).closed is not None:
            await study.closed.wait()
        study.users += 1
        try:
            yield study
        finally:
            study.users -= 1
            study.unused.set()
            self._note_use(study)

    def note_instance(self, study: OpenStudy, sop_instance_uid: str) -> bool:
        """Note an instance of a study; return whether any open study has one of the same UID."""
        is_repeated = sop_instance_uid in self._instances
        self._instances.add(sop_instance_uid)
        study.instances.add(sop_instance_uid)
        return is_repeated

    def begin_closing(self, uids: Iterable[str] | None) -> tuple[list[OpenStudy], list[OpenStudy]]:
        """Begin to close studies, all for None; return those, and those that close already."""
        if uids is None:
            wanted = list(self._studies.values())
        else:
            wanted = [self._studies[uid] for uid in dict.fromkeys(uids) if uid in self._studies]
        mine = [study for study in wanted if study.closed is None]
        others = [study for study in wanted if study.closed is not None]
        for study in mine:
            study.closed = trio.Event()
        return mine, others

    def end_closing(self, study: OpenStudy) -> None:
        """Forget a study that has closed or failed to close; wake the tasks that wait for it."""
        if study.closed is None or study.closed.is_set():
            return
        self._instances -= study.instances
        del self._studies[study.uid]
        if study.late_rows:
            self.get(study.uid).rows |= study.late_rows
        study.closed.set()

    async def quiet(self, seconds: float, most: int) -> list[str]:
        """Wait until some have not been used for a while; return those, at most so many."""
        while True:
            now, quiet = trio.current_time(), []
            for study in list(islice(self._studies.values(), most)):
                if study.used_time + seconds > now:
                    break
                if study.users or study.closed is not None:
                    self._note_use(study)  # it is used, or gone soon
                else:
                    quiet.append(study.uid)
            if quiet:
                return quiet
            first = next(iter(self._studies.values()), None)
            if first is not None:
                await trio.sleep_until(first.used_time + seconds)
            else:
                self._some = trio.Event()
                await self._some.wait()
