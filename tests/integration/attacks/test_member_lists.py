"""A stolen list key: it ends no network, and what it did while nobody knew is undone.

The thief has a list key, its own connection to the directory, or the directory itself.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.directory.v1 import directory_pb2 as pb

from directory_service.client import open_operator_client
from directory_service.operator import OperatorKey
from node.crypto.certificates import issue_directory_certificate
from node.crypto.signing import SigningKey
from node.documents.lists import delegate_lists, open_list, sign_list
from node.documents.network import Membership
from node.errors import NodeError
from node.rpc.credentials import introduction_credentials
from node.rpc.serving import serve
from tests.integration.test_directory import import_study, make_node, stop
from tests.support.hostile_directory import HostileDirectory
from tests.support.loop import run
from tests.support.nodes import CommandFailed, Directory, Node, free_port, wait_until

pytestmark = pytest.mark.integration
HOUR, DAY = 3600.0, 86400.0


def standing(node: Node) -> str:
    return str(node.json("networks")["networks"][0]["standing"])


def revoking_all(
    stolen: OperatorKey, members: list[Membership], number: int, issued: float
) -> bytes:
    """Return what the thief signs: nobody is a member any more."""
    return sign_list(
        stolen.key,
        stolen.network,
        number,
        {},
        frozenset(m.invitation.id for m in members),
        issued,
        certificate=stolen.certificate,
    )


def stolen_key(operator: OperatorKey, expires: float) -> OperatorKey:
    key = SigningKey.new()
    certificate = delegate_lists(operator.key, key.public, expires)
    return OperatorKey(
        operator.name, key, certificate, operator.network_key, operator.endpoints, b"", None
    )


def thefts(operator: OperatorKey, members: list[Membership], now: float) -> dict[str, bytes]:
    """Return the lists of thieves that no node may take over."""
    over, valid = stolen_key(operator, now - HOUR), stolen_key(operator, now + DAY)
    return {
        "a back-dated list by a key whose time is over": revoking_all(
            over, members, 9, now - 2 * HOUR
        ),
        "the highest number there was, likewise": revoking_all(
            over, members, 2**40, now - 2 * HOUR
        ),
        "the highest number there was, by a key that stands": revoking_all(
            valid, members, 2**40, now
        ),
        "a number above that of the second, by a key that stands": revoking_all(
            valid, members, int(now) + 10**6, now
        ),
        "a list that has expired": revoking_all(valid, members, 9, now - 8 * DAY),
    }


def test_no_list_of_a_thief_ends_a_network_when_a_directory_shows_it(tmp_path: Path) -> None:
    port = free_port()
    operator = OperatorKey.new("Montana Imaging", (f"127.0.0.1:{port}",), time.time())
    assert operator.root is not None
    tls = issue_directory_certificate(operator.root, time.time())
    node = make_node(tmp_path, "node", "Great Falls Clinic", trust='"network"')

    async def asked(work: Callable[..., Any], *arguments: Any) -> Any:
        return await trio.to_thread.run_sync(work, *arguments)

    async def work() -> None:
        directory = HostileDirectory(operator)
        async with serve(
            [directory.service()], f"127.0.0.1:{port}", credentials=introduction_credentials(tls)
        ):
            letter = operator.invite("Great Falls Clinic", time.time()).encode()
            await asked(node.run, "join", letter)
            with trio.fail_after(30):
                await directory.watching.wait()
            first = operator.next_list(None, directory.joined, [], time.time())
            directory.shown_list = first
            await directory.tell.send(pb.WatchResponse(list=first))
            await asked(wait_until, lambda: standing(node) == "member", "no member")
            for name, encoded in thefts(operator, directory.joined, time.time()).items():
                await directory.tell.send(pb.WatchResponse(list=encoded))
                await asked(
                    wait_until,
                    lambda: node.json("status")["alarms"] or standing(node) == "revoked",
                    name,
                )
                assert standing(node) == "member", name
                await asked(node.run, "audit", "acknowledge")
            latest = open_list(first, operator.network_key, time.time())
            following = operator.next_list(latest, directory.joined, [], time.time())
            await directory.tell.send(pb.WatchResponse(list=following))
            await asked(
                wait_until,
                lambda: node.json("networks")["networks"][0]["list_number"] == 2,
                "the operator's next list is not taken over",
            )
            assert standing(node) == "member"

    try:
        run(work)
    finally:
        stop(node)


def publishes(key: OperatorKey, encoded: bytes) -> bool:
    """Whether a directory takes a list from whoever brings it."""
    with open_operator_client(key) as client:
        try:
            client.publish(encoded)
        except NodeError:
            return False
    return True


def test_operator_recovers_from_a_list_key_that_was_stolen(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.make()
    directory.start()
    a = make_node(tmp_path, "a", "Great Falls Clinic", trust='"network"')
    b = make_node(tmp_path, "b", "Billings Hospital", trust='"network"')
    network_key, list_key = ("--network-key", str(directory.key)), tmp_path / "list.key"
    try:
        directory.run("list", "key", *network_key, "--out", str(list_key))
        for node in (a, b):
            node.run("join", directory.invite(node.display_name))
        directory.run("list", "sign", "--network-key", str(list_key))
        for node in (a, b):
            wait_until(lambda node=node: standing(node) == "member", "it is not confirmed")
        stolen = OperatorKey.read(list_key)
        with open_operator_client(stolen) as client:
            _, members = client.members()
        assert not publishes(stolen, revoking_all(stolen, members, 2**40, time.time()))
        now = time.time()
        assert publishes(stolen, revoking_all(stolen, members, int(now), now))  # not yet known of
        for node in (a, b):
            wait_until(lambda node=node: standing(node) == "revoked", "it did not hear of it", 60)

        directory.run("list", "recover", *network_key, "--from", f"{list_key}.list")
        for node in (a, b):
            wait_until(lambda node=node: standing(node) == "member", "it is not let in again", 90)
        uid = import_study(a, tmp_path, 41)
        wait_until(
            lambda: any(f["online"] for f in a.json("find", "billings")["facilities"]),
            "it did not come back",
        )
        a.run("send", uid, "Billings Hospital", "--wait")
        assert uid in b.run("studies")

        now = time.time()
        assert not publishes(stolen, revoking_all(stolen, members, int(now), now))
        with pytest.raises(
            CommandFailed, match="the network has ended this list key by a new epoch"
        ):
            directory.run("list", "sign", "--network-key", str(list_key))
        new_key = tmp_path / "new-list.key"
        directory.run("list", "key", *network_key, "--out", str(new_key))
        directory.run("list", "sign", "--network-key", str(new_key))
        wait_until(
            lambda: b.json("networks")["networks"][0]["list_number"] == 2, "the new key is no use"
        )
        assert (standing(b), b.json("networks")["networks"][0]["list_epoch"]) == ("member", 2)
    finally:
        stop(directory, a, b)
