"""Somebody who has used a letter, stolen perhaps, and whom no signed list names yet."""

import time
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.directory.v1 import directory_pb2 as pb

from directory_service.operator import OperatorKey
from node.documents.network import JoinLetter, claim
from node.domain.ids import FacilityId
from node.errors import PeerUntrusted
from tests.directory_service.test_service import Client, Facility, next_event
from tests.integration.test_directory import facility_id, make_node, stop
from tests.support.loop import run
from tests.support.nodes import Directory, Node, wait_until
from tests.support.simulated import connected

pytestmark = pytest.mark.integration


async def learned(client: Client, victim: FacilityId) -> list[str]:
    """Return what calls told the attacker anything."""
    calls: dict[str, Any] = {
        "GetNetwork": pb.GetNetworkRequest(),
        "Find": pb.FindRequest(words="great falls"),
        "Lookup": pb.LookupRequest(facility_ids=[victim.digest]),
        "AskDialBack": pb.AskDialBackRequest(facility_id=victim.digest),
        "AskTicket": pb.AskTicketRequest(facility_id=victim.digest),
    }
    found = []
    for name, request in calls.items():
        try:
            answer = await client.call(name, request)
        except PeerUntrusted:
            continue
        if name != "GetNetwork" or answer.list:
            found.append(name)
    return found


def test_unconfirmed_member_finds_nobody_and_learns_nothing_until_a_list_names_it(
    tmp_path: Path,
) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    attacker = Facility("Billings Hospital")

    async def asked(work: Any, *arguments: Any) -> Any:
        return await trio.to_thread.run_sync(work, *arguments)

    async def work(victim: FacilityId) -> None:
        letter = JoinLetter.decode(await asked(directory.invite, "Billings Hospital"))
        membership = claim(letter, attacker.signer.facility_key, time.time())
        operator = OperatorKey.read(directory.key)
        async with connected(operator, directory.address) as channel:
            client = Client(channel, operator.root_certificate)
            await client.join(attacker, membership)
            await client.login(attacker)
            await client.announce(attacker)  # it may be found once it is confirmed
            assert await learned(client, victim) == []
            with pytest.raises(PeerUntrusted, match="not confirmed yet"):
                await client.call("Find", pb.FindRequest(words="great falls"))
            async with client.watch(victim) as stream:
                with trio.fail_after(60):
                    for _ in range(2):
                        heard = await stream.read()
                        assert heard is not None
                        assert heard.WhichOneof("event") is None, heard
                await asked(directory.sign_list)
                assert await next_event(stream, "list")
                assert (await next_event(stream, "record")).online
            assert (await client.call("Find", pb.FindRequest(words="great falls"))).records
            assert await learned(client, victim) == [
                "GetNetwork", "Find", "Lookup", "AskDialBack", "AskTicket",
            ]  # fmt: skip

    try:
        directory.enroll(a)
        run(lambda: work(FacilityId.parse(facility_id(a))))
    finally:
        stop(a, directory)


def test_node_that_waits_to_be_confirmed_says_so_and_goes_on_by_itself(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a, b = (
        make_node(tmp_path, name, name.title(), trust='"network"') for name in ("first", "second")
    )

    def standing(node: Node) -> tuple[str, str]:
        [network] = node.json("networks")["networks"]
        return network["standing"], network["state"]

    try:
        directory.enroll(a)
        b.run("join", directory.invite("Second"))
        b.run("find", "first", statuses=(21,))
        assert standing(b)[0] == "provisional"
        directory.sign_list()
        wait_until(lambda: standing(b) == ("member", "connected"), "it is not confirmed")
        assert b.json("find", "first")["facilities"][0]["online"]
    finally:
        stop(a, b, directory)
