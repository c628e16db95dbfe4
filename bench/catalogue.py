"""How long what a person types takes with 100,000 studies: `python -m bench.catalogue`.

Studies are put into a store by the node's own functions, each with two series and four instances.
Then questions are asked as commands and query adapters ask them, first one at a time, then by four
askers beside a writer that commits a transaction every hundredth of a second.
"""

import os
import random
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from node.domain.display_text import words_to_find
from node.domain.ids import ChunkId, PackageId
from node.domain.index import PackageIndex
from node.domain.manifest import (
    ChunkEntry,
    Extent,
    InstanceEntry,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
)
from node.domain.packages import PackageState
from node.domain.query import Level, Query, make_query
from node.sql.database import Db
from node.store import package_rows
from node.store.audit import AuditStore
from node.store.catalogue import CatalogueStore
from node.store.context import StoreContext
from node.store.studies import StudyStore
from tests.node.store.test_import_resumes import make_store

RESULTS = Path(__file__).with_name("results-catalogue.md")
STUDIES = int(os.environ.get("STUDIES", "100000"))
ROUNDS = int(os.environ.get("ROUNDS", "200"))
_ASKERS = 4
_AT_ONCE = 1000  # studies put in with one transaction
_SHOWN = 50
_WRITTEN = "INSERT OR REPLACE INTO meta VALUES ('bench', randomblob(900))"

_BEGINNINGS = "Mü Schö San Ker Bran Hol Wil Dar Pet Ros Gal Tor Ven Lam Fer Nov Mar Ols Jo Ab"
_ENDINGS = "ller berg chez mann don stein son ski rova ter nik lov dez ton gen hal man sen li"
_FIRST = "Anna Karl Peter María José Zoë Björn Elif Jan Olga Ivan Lucía Åsa Paul Ruth Emma Noah"
_EXAMINATIONS = (
    ("CT", "CT HEAD W/O CONTRAST"),
    ("MR", "MR KNEE LEFT"),
    ("CR", "XR CHEST PA AND LATERAL"),
    ("US", "US ABDOMEN COMPLETE"),
    ("CT", "CT ABDOMEN PELVIS WITH CONTRAST"),
    ("MG", "MG SCREENING BILATERAL"),
    ("MR", "MRT Schädel nativ"),
)
_CT = SOPClassUID("1.2.840.10008.5.1.4.1.1.2")
_LITTLE = TransferSyntaxUID("1.2.840.10008.1.2.1")


def _person(chance: random.Random) -> str:
    last = chance.choice(_BEGINNINGS.split()) + chance.choice(_ENDINGS.split())
    return f"{last}^{chance.choice(_FIRST.split())}"


def _day(chance: random.Random, first: int, last: int) -> str:
    return f"{chance.randint(first, last)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}"


def _words(chance: random.Random, n: int) -> dict[str, str]:
    modality, description = chance.choice(_EXAMINATIONS)
    return {
        "PatientName": _person(chance),
        "PatientID": f"P{chance.randrange(70_000):06}",
        "PatientBirthDate": _day(chance, 1930, 2015),
        "PatientSex": chance.choice("FM"),
        "StudyDate": _day(chance, 2010, 2026),
        "StudyTime": f"{chance.randrange(24):02}{chance.randrange(60):02}00",
        "StudyDescription": description,
        "AccessionNumber": f"A{n:08}",
        "ReferringPhysicianName": _person(chance),
        "InstitutionName": "Great Falls Clinic",
        "Modality": modality,
    }


def _put(db: Db, context: StoreContext, chance: random.Random, n: int) -> None:
    uid = f"1.2.826.0.1.3680043.9.{chance.randrange(10**14)}.{n}"
    package = package_rows.add_package(
        db,
        package_id=PackageId(secrets.token_bytes(32)),
        origin=context.facility,
        study_uid=uid,
        state=PackageState.CLOSED,
        epoch=1,
        wrapped_key=bytes(72),
    )
    db.execute("UPDATE packages SET manifest = ? WHERE id = ?", (bytes(1200), package))
    chunk = ChunkEntry(
        0, ChunkId(secrets.token_bytes(32)), 2_000_000, 1_000_000, secrets.token_bytes(32)
    )
    package_rows.add_chunks(db, package, 0, [chunk], present=True)
    instances = [
        InstanceEntry(
            _CT,
            SOPInstanceUID(f"{uid}.{i % 2}.{i}"),
            SeriesInstanceUID(f"{uid}.{i % 2}"),
            _LITTLE,
            500_000,
            secrets.token_bytes(32),
            (Extent(0, i * 500_000, 500_000),),
        )
        for i in range(4)
    ]
    package_rows.add_instances(db, package, 0, instances)
    index = PackageIndex()
    words = _words(chance, n)
    for i in range(2):
        index.add({**words, "SeriesInstanceUID": f"{uid}.{i}", "SeriesNumber": str(i + 1)})
    package_rows.merge_index(db, package, index, index.forms())


def fill(context: StoreContext, studies: int) -> None:
    """Put studies into a store, the same ones each time but for what is random in earnest."""
    chance = random.Random(7)
    for first in range(0, studies, _AT_ONCE):

        def work(db: Db, first: int = first) -> None:
            for n in range(first, min(first + _AT_ONCE, studies)):
                _put(db, context, chance, n)

        context.database.write_sync(work)


def _typed(text: str) -> Callable[[random.Random], Query]:
    """Return how words are asked for; `#` in them is a digit, `@` a person's family name."""

    def make(chance: random.Random) -> Query:
        words = _filled(text, chance)
        return make_query(Level.STUDY, {}, words_to_find(words), limit=_SHOWN)

    return make


def _keys(level: Level = Level.STUDY, **keys: str) -> Callable[[random.Random], Query]:
    def make(chance: random.Random) -> Query:
        filled = {keyword: _filled(text, chance) for keyword, text in keys.items()}
        return make_query(level, filled, limit=_SHOWN)

    return make


def _filled(text: str, chance: random.Random) -> str:
    name = _person(chance).partition("^")[0]
    of = {"#": lambda: str(chance.randrange(10)), "+": lambda: str(chance.randint(1, 9))}
    return "".join(name if c == "@" else of[c]() if c in of else c for c in text)


QUESTIONS = {
    "nothing: the newest": _typed(""),
    "a family name": _typed("@"),
    "family and first name": _typed("@ anna"),
    "a patient ID": _typed("P0#####"),
    "an accession number": _typed("A000#####"),
    "a name that nobody has": _typed("zzyzx"),
    "a name and a birth date": _typed("@ 19#0-0+-1#"),
    "an examination and a day": _typed("screening 202#-0#-1#"),
    "PatientID": _keys(PatientID="P0#####"),
    "AccessionNumber": _keys(AccessionNumber="A000#####"),
    "PatientName=@*": _keys(PatientName="@*"),
    "PatientName=*@*": _keys(PatientName="*@*"),
    "PatientName=@^A* and birth date": _keys(PatientName="@^A*", PatientBirthDate="19#00+1#"),
    "StudyDate of a week": _keys(StudyDate="20260601-20260607"),
    "StudyDate and modality": _keys(StudyDate="20260101-20261231", ModalitiesInStudy="MG"),
    "StudyDescription=*kopf*": _keys(StudyDescription="*kopf*"),
    "series of a patient": _keys(Level.SERIES, PatientID="P0#####"),
    "instances of a patient": _keys(Level.IMAGE, PatientID="P0#####"),
}


async def _ask(store: CatalogueStore, studies: StudyStore, name: str, query: Query) -> float:
    """Ask as the command does for words, as a query adapter does for keys; return the seconds."""
    begun = time.perf_counter()
    if query.criteria:
        await store.find(query)
    else:
        await studies.sources(await store.studies(query))
    return time.perf_counter() - begun


async def _measure(context: StoreContext) -> dict[str, tuple[list[float], list[float]]]:
    store = CatalogueStore(context, AuditStore(context))
    studies = StudyStore(context)
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in QUESTIONS}
    chance = random.Random(8)
    for _ in range(ROUNDS):
        for name, make in QUESTIONS.items():
            found[name][0].append(await _ask(store, studies, name, make(chance)))

    async def asker(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(ROUNDS // _ASKERS):
            for name in chance.sample(list(QUESTIONS), len(QUESTIONS)):
                query = QUESTIONS[name](chance)
                found[name][1].append(await _ask(store, studies, name, query))

    async def writer() -> None:
        while True:
            await context.database.write(lambda db: db.execute(_WRITTEN))
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer)
        async with trio.open_nursery() as askers:
            for seed in range(_ASKERS):
                askers.start_soon(asker, seed)
        nursery.cancel_scope.cancel()
    return found


def _of(times: list[float]) -> str:
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    return f"{1000 * statistics.median(times):.1f} | {1000 * p99:.1f}"


def main() -> None:
    """Fill a store, ask, and write the result."""
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    context = make_store(folder / "home")
    try:
        fill(context, STUDIES)
        found = trio.run(_measure, context)
    finally:
        context.close()
        shutil.rmtree(folder)
    every = [[t for times in found.values() for t in times[i]] for i in range(2)]
    lines = [
        f"| {name} | {_of(alone)} | {_of(beside)} |" for name, (alone, beside) in found.items()
    ]
    text = (
        "# Questions to the catalogue\n\n"
        f"{time.strftime('%Y-%m-%d')}. {STUDIES:,} studies of four instances in an encrypted"
        f" database, two cores; milliseconds of {ROUNDS} questions of each kind with their"
        f" answers, at most {_SHOWN} shown. Words are what `emix studies` is given, keys what"
        " `emix query` is. `#` stands for a digit and `@` for a family name, others each time.\n\n"
        f"| question | median, alone | p99 | median, {_ASKERS} askers and a writer | p99 |\n"
        "|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
        f"| **all** | {_of(every[0])} | {_of(every[1])} |\n"
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
