"""A directory that shows its nodes different lists: what one is told, its peers learn from it."""

import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.directory.v1 import directory_pb2 as pb

from directory_service.operator import OperatorKey
from node.crypto.certificates import issue_directory_certificate
from node.documents.lists import open_list
from node.documents.network import claim
from node.domain.network import ListProblem
from node.rpc.credentials import introduction_credentials
from node.rpc.serving import serve
from tests.support.hostile import HostilePeer
from tests.support.hostile_directory import HostileDirectory
from tests.support.loop import run
from tests.support.nodes import Node, free_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def list_number(node: Node) -> int:
    [network] = node.json("networks")["networks"]
    return int(network["list_number"])


def test_revocation_that_a_directory_keeps_from_a_node_is_learned_from_a_peer_and_told_of(
    tmp_path: Path,
) -> None:
    ports = [free_port(), free_port()]
    operator = OperatorKey.new("Montana Imaging", (f"127.0.0.1:{ports[0]}",), time.time())
    assert operator.root is not None
    tls = issue_directory_certificate(operator.root, time.time())
    a, b = (Node(tmp_path, name, name.title()) for name in ("told", "fooled"))
    for node in (a, b):
        node.make()
        node.set(trust='"network"')
        node.start()
    victim = HostilePeer(tmp_path, "victim")

    async def asked(node: Node, *arguments: str) -> Any:
        return await trio.to_thread.run_sync(lambda: node.run(*arguments))

    async def waited(condition: Any, problem: str, seconds: float = 30) -> None:
        await trio.to_thread.run_sync(wait_until, condition, problem, seconds)

    async def work() -> None:
        directories = [HostileDirectory(operator), HostileDirectory(operator)]
        letter = operator.invite("Victim Hospital", time.time())
        victims = claim(letter, victim.keys.signer.signer.facility_key, time.time())
        async with AsyncExitStack() as stack:
            for directory, port, node in zip(directories, ports, (a, b), strict=True):
                service = [directory.service()]
                credentials = introduction_credentials(tls)
                address = f"127.0.0.1:{port}"
                await stack.enter_async_context(serve(service, address, credentials=credentials))
                theirs = replace(operator, endpoints=(address,))
                await asked(node, "join", theirs.invite(node.display_name, time.time()).encode())
                with trio.fail_after(30):
                    await directory.watching.wait()
            memberships = [victims, *(m for d in directories for m in d.joined)]
            first = operator.next_list(None, memberships, [], time.time())
            for directory in directories:
                directory.shown_list = first
                await directory.tell.send(pb.WatchResponse(list=first))
            for node in (a, b):
                await waited(lambda node=node: list_number(node) == 1, "no list came")
            for node, other in ((a, b), (b, a)):
                shown = tmp_path / f"{node.home.name}.emix"
                await asked(node, "id", "--export", str(shown))
                await asked(other, "peers", "pair", str(shown))
            await waited(
                lambda: all(n.json("peers")["peers"][0]["state"] == "connected" for n in (a, b)),
                "they do not meet",
            )
            latest = open_list(first, operator.network_key, time.time())
            revoked = [victims.invitation.id]
            following = operator.next_list(latest, memberships, revoked, time.time())
            # The directory of b goes on as if nothing had been signed.
            await directories[0].tell.send(pb.WatchResponse(list=following))
            await waited(lambda: list_number(b) == 2, "it was not passed on", 60)
            found = b.json("networks")["networks"][0]
            assert found["standing"] == "member"
            await waited(
                lambda: any(ListProblem.WITHHELD.value in x for x in b.json("status")["alarms"]),
                "nobody is told",
                60,
            )
            assert not any("network" in alarm for alarm in a.json("status")["alarms"])
            # Once an admin has seen it, the status is quiet; the audit log is not.
            assert "acknowledged" in await asked(b, "audit", "acknowledge")
            assert not any(
                ListProblem.WITHHELD.value in alarm for alarm in b.json("status")["alarms"]
            )
            assert ListProblem.WITHHELD.value in await asked(b, "audit")
            assert "No alarm is open" in await asked(b, "audit", "--alarms")
            assert "intact" in await asked(b, "audit", "verify")

    try:
        run(work)
    finally:
        assert (a.stop(), b.stop()) == (0, 0)
