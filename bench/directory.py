"""A directory with many simulated nodes: `python -m bench.directory`, into results-directory.md.

Each node has a TLS connection of its own, a session, an announcement and a watch stream. They come
all at once, as after a restart. NODES=10000 by default: 20,000 file handles are enough. Then
lookups at three processes on one PostgreSQL, beside one alone.
"""

import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio_asyncio
from emix.directory.v1 import directory_pb2 as pb

from directory_service.operator import OperatorKey, list_beside
from node.documents.lists import open_list
from node.errors import NodeError
from node.rpc.calling import Channel
from node.rpc.pieces import pieces
from tests.support.nodes import Directory, wait_until
from tests.support.postgres import running_postgres
from tests.support.simulated import METHODS, SimulatedNode, connected

RESULTS = Path(__file__).with_name("results-directory.md")
NODES = int(os.environ.get("NODES", "10000"))
LOOKUPS = 3000
SEVERAL_NODES = 300
# Askers are few here, and ask a lot; and the nodes join one after the other in a moment.
_SERVE = (
    "import directory_service.service as s; s.CALLS_A_MINUTE = 10**9;"
    " s.COSTLY_CALLS_A_MINUTE = {}; s.OPEN_CALLS_A_MINUTE_IN_ALL = 10**9;"
    " from directory_service.cli import main; main()"
)


class _Unlimited(Directory):
    def make(self, *options: str) -> None:
        """Make the home; all nodes come from one address, as behind a proxy."""
        super().make(*options)
        config = self.home / "directory.toml"
        text = config.read_text()
        for limit in ("strangers_a_minute = 120", "strangers_at_once = 16"):
            text = text.replace(f"# {limit}", f"{limit.partition(' ')[0]} = 1000000")
        config.write_text(text)

    def command(self, *arguments: str) -> list[str]:
        if arguments[0] != "serve":
            return super().command(*arguments)
        return [sys.executable, "-c", _SERVE, "--home", str(self.home), *arguments]


def main() -> None:
    """Run all and write the results."""
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    directory = _Unlimited(folder)
    try:
        directory.make()
        directory.start()
        text = trio_asyncio.run(_measure, directory)
    finally:
        directory.stop()
        shutil.rmtree(folder)
    text += _several()
    RESULTS.write_text(text)
    print(text)


async def _measure(directory: Directory) -> str:
    operator = OperatorKey.read(directory.key)
    nodes = [SimulatedNode(n, operator) for n in range(NODES)]
    empty = _memory(directory)

    def opened() -> Any:
        return connected(operator, directory.address)

    async with opened() as channel:
        for node in nodes:
            await node.join(channel)
            await node.come(channel)
    directory.run("list", "sign", "--network-key", str(directory.key))
    listed = open_list(list_beside(directory.key).read_bytes(), operator.network_key, time.time())
    for node in nodes:
        node.known_list = listed.digest
    directory.stop()
    began = time.perf_counter()
    directory.start()  # so that what is measured is what a restart costs
    starting = time.perf_counter() - began
    watching = retries = 0
    informed: list[int] = []
    all_watch, all_informed = trio.Event(), trio.Event()

    async def watch(node: SimulatedNode) -> None:
        nonlocal watching
        async with opened() as channel:
            await node.come(channel)
            async with channel.stream(
                METHODS["Watch"],
                pb.WatchRequest(known_list=node.known_list),
                metadata=node.metadata,
            ) as stream:
                await stream.read()
                watching += 1
                if watching == NODES:
                    all_watch.set()
                while (message := await stream.read()) is not None:
                    if message.WhichOneof("event") in ("list", "list_change"):
                        informed.append(message.ByteSize())
                        if len(informed) >= NODES - 1:  # all but who was revoked
                            all_informed.set()

    async def live(node: SimulatedNode) -> None:
        """Come, and try again as a node does."""
        nonlocal retries
        pause = 1.0
        while True:
            node.metadata = ()
            try:
                await watch(node)
            except NodeError:
                retries += 1
            await trio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 60)

    async with trio.open_nursery() as nursery:
        started = time.perf_counter()
        for node in nodes:
            nursery.start_soon(live, node)
        await all_watch.wait()
        coming = time.perf_counter() - started
        await trio.sleep(5)
        memory = _memory(directory) - empty
        async with opened() as channel:
            latencies, rate = await _lookups(nodes, channel)
            find = await _finds(nodes[0], channel)
        await trio.to_thread.run_sync(
            wait_until,
            lambda: directory.json("status")["online"] == NODES,
            "they are not all online",
        )
        gone = next(iter(listed.members))
        encoded = operator.next_list(listed, (), [gone], time.time())
        began = time.perf_counter()
        async with opened() as channel:
            requests = [pb.PublishRequest(list=piece) for piece in pieces(encoded)]
            await channel.bring(METHODS["Publish"], requests, timeout=60)
        await all_informed.wait()
        informing = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    p99 = 1000 * latencies[int(0.99 * len(latencies))]
    return (
        "# A directory with many nodes\n\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores; {NODES:,} simulated nodes, each with"
        " its own TLS connection and watch stream, in one other process on the same machine, which"
        " takes its share of the two cores; the embedded database. They come from one address, so"
        " the limit for strangers is set higher; so are the limits of the askers.\n\n"
        "| figure | reached | to reach |\n|---|---|---|\n"
        "| memory of an idle node: its record, TLS, a watch stream |"
        f" {memory / NODES / 1000:.0f} KB | 150 KB |\n"
        f"| all of them are served again after a restart | {starting + coming:.1f} s:"
        f" {starting:.1f} s until it serves, {coming:.1f} s for all to come at once, compare lists,"
        f" log in and watch; {retries} tries again | 60 s |\n"
        f"| a lookup, 8 at a time: median, p99 | {1000 * statistics.median(latencies):.1f} ms,"
        f" {p99:.1f} ms | p99 50 ms |\n"
        f"| lookups a second, one process | {rate:.0f} | reported |\n"
        f"| a revocation is with all of them (a list of {len(encoded) // 1000:,} KB; each is told"
        f" {statistics.median(informed) / 1000:.1f} KB) | {informing:.1f} s | 60 s |\n"
        f"| a search with a typing error: median | {1000 * find:.1f} ms | reported |\n"
    )


def _several() -> str:
    """Measure lookups at three processes on one PostgreSQL, and at one of them."""
    folder = Path(tempfile.mkdtemp(prefix="emix-bench-"))
    processes: list[Directory] = []
    folder.chmod(0o755)  # for the user who runs PostgreSQL
    with running_postgres(folder / "postgres") as database:
        first: Directory = _Unlimited(folder, "one")
        try:
            first.relay = ""
            first.make("--database", database.url)
            for name in ("one", "two", "three"):
                process = first if name == "one" else _Unlimited(folder, name)
                processes.append(process)
                if process is not first:
                    shutil.copytree(first.home, process.home)
                config = process.home / "directory.toml"
                config.write_text(config.read_text().replace(first.address, process.address))
            for process in processes:
                process.start()
            operator = OperatorKey.read(first.key)
            one, three = trio_asyncio.run(_ask_several, processes, operator)
        finally:
            for process in processes:
                process.stop()
    shutil.rmtree(folder)
    return (
        f"\n{SEVERAL_NODES} nodes, PostgreSQL, processes and the askers (16 at a time for each"
        " process, in one process) on the same two cores:\n\n"
        "| | lookups a second |\n|---|---|\n"
        f"| one process | {one:.0f} |\n| three processes | {three:.0f} |\n\n"
        "One process and who asks it fill two cores; what three can do needs more of them.\n"
    )


async def _ask_several(processes: list[Directory], operator: OperatorKey) -> tuple[float, float]:
    nodes = [SimulatedNode(n, operator) for n in range(SEVERAL_NODES)]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(connected(operator, process.address))
            for process in processes
            for _ in range(2)
        ]
        for node in nodes:
            await node.join(channels[0])
            await node.come(channels[0])
        # Whom no list names yet finds nobody; the other processes hear of the list from the first.
        sign = partial(processes[0].run, "list", "sign", "--network-key", str(processes[0].key))
        await trio.to_thread.run_sync(sign)
        for channel in channels:
            await _confirmed(nodes[0], channel)

        async def rate(which: list[Channel]) -> float:
            started = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for channel in which:
                    nursery.start_soon(_lookups, nodes, channel)
            return len(which) * LOOKUPS / (time.perf_counter() - started)

        return await rate(channels[:2]), await rate(channels)


async def _confirmed(node: SimulatedNode, channel: Channel) -> None:
    """Wait until the process at the other end has the list that names the node."""
    request = pb.LookupRequest(facility_ids=[node.facility.digest])
    with trio.fail_after(60):
        while True:
            try:
                await channel.unary(METHODS["Lookup"], request, metadata=node.metadata)
                return
            except NodeError:
                await trio.sleep(0.1)


async def _lookups(nodes: list[SimulatedNode], channel: Channel) -> tuple[list[float], float]:
    latencies: list[float] = []
    started = time.perf_counter()

    async def ask(which: range) -> None:
        for n in which:
            node, wanted = nodes[n % len(nodes)], nodes[7 * n % len(nodes)]
            request = pb.LookupRequest(facility_ids=[wanted.facility.digest])
            began = time.perf_counter()
            found = await channel.unary(
                METHODS["Lookup"], request, timeout=60, metadata=node.metadata
            )
            latencies.append(time.perf_counter() - began)
            if len(found.records) != 1:
                raise RuntimeError("a lookup found nobody")

    async with trio.open_nursery() as nursery:
        for start in range(8):
            nursery.start_soon(ask, range(start, LOOKUPS, 8))
    return sorted(latencies), LOOKUPS / (time.perf_counter() - started)


async def _finds(node: SimulatedNode, channel: Channel) -> float:
    seconds = []
    for n in range(50):
        began = time.perf_counter()
        request = pb.FindRequest(words=f"clinc {n * 31 % NODES}")
        await channel.unary(METHODS["Find"], request, timeout=60, metadata=node.metadata)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _memory(directory: Directory) -> int:
    assert directory.process is not None
    status = Path(f"/proc/{directory.process.pid}/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
