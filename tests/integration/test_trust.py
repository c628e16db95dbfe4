"""Who is not trusted gets nothing, and what was tampered with is refused by its own name."""

import random
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.crypto.certificates import make_tls_identity, name_in, pem_to_der
from node.crypto.keys import DataKey
from node.documents.delivery import open_delivery
from node.documents.identity import Identity
from node.documents.manifest import decode_body, open_manifest, sign_manifest
from node.documents.messages import (
    Answer,
    AnswerKind,
    ChunkFrame,
    Collect,
    ManifestFrame,
    Offer,
    Problem,
    ReceiptKept,
    ReceiptMessage,
    Want,
)
from node.documents.receipt import Receipt, open_receipt, sign_receipt
from node.documents.signed import Document
from node.domain.ids import ChunkId, FacilityId, TransferId
from node.errors import DocumentError, NodeError, PeerUnreachable, PeerUntrusted, ungrouped
from node.federation.connections.introduction_client import IntroductionClient
from node.federation.connections.link import GrpcLink
from node.federation.routes.dialing import Dialer
from node.rpc.calling import Stream
from tests.support.dicom_files import encode, make_dataset, make_instance, study_uid, write_study
from tests.support.hostile import HELLO, WATCH, Forgery, HostilePeer, forge, hello
from tests.support.loop import run
from tests.support.nodes import CommandFailed, Node, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"), "victim", "Victim Hospital")
    node.make()
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def paired(node: Node, tmp_path_factory: pytest.TempPathFactory) -> tuple[HostilePeer, Identity]:
    peer = HostilePeer(tmp_path_factory.mktemp("hostile"))
    return peer, peer.pair_with(node)


# -- who ------------------------------------------------------------------------------------


def test_paired_peer_is_answered(node: Node, paired: tuple[HostilePeer, Identity]) -> None:
    """The control of the refusals below."""
    peer, identity = paired

    async def work() -> None:
        async with peer.channel(node, identity) as channel:
            answer = await channel.unary(HELLO, hello(), timeout=10)
            assert answer.version == 1

    run(work)


def test_unpaired_node_fails_in_the_handshake(
    node: Node, paired: tuple[HostilePeer, Identity], tmp_path: Path
) -> None:
    _, identity = paired
    stranger = HostilePeer(tmp_path, "stranger")

    async def work() -> None:
        async with stranger.channel(node, identity) as channel:
            with pytest.raises(PeerUnreachable):
                await channel.unary(HELLO, hello(), timeout=10)

    run(work)


def test_other_certificate_with_the_same_names_fails_in_the_handshake(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired
    other = make_tls_identity(peer.keys.signer.node_id, 1_790_000_000.0)

    async def work() -> None:
        async with peer.channel(node, identity, other) as channel:
            with pytest.raises(PeerUnreachable):
                await channel.unary(HELLO, hello(), timeout=10)

    run(work)


def test_server_with_another_certificate_is_not_talked_to(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired
    fake = make_tls_identity(identity.node_id, 1_790_000_000.0)
    wrong = replace(identity, certificates=(fake.certificate_der,))

    async def work() -> None:
        async with peer.channel(node, wrong) as channel:
            with pytest.raises(PeerUnreachable):
                await channel.unary(HELLO, hello(), timeout=10)

    run(work)


def test_unary_call_without_deadline_is_refused(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired

    async def work() -> None:
        async with peer.channel(node, identity) as channel:
            with pytest.raises(NodeError, match="deadline"):
                await channel.unary(HELLO, hello())

    run(work)


def test_peer_that_is_removed_is_refused_on_a_channel_that_is_open(
    node: Node, tmp_path: Path
) -> None:
    peer = HostilePeer(tmp_path, "soon-removed")
    identity = peer.pair_with(node)

    async def work() -> None:
        async with peer.channel(node, identity) as channel:
            await channel.unary(HELLO, hello(), timeout=10)
            async with channel.stream(WATCH, pb.WatchRequest()) as watch:
                assert await watch.read() is not None
                await trio.to_thread.run_sync(node.run, "peers", "remove", "soon-removed", "--yes")
                with pytest.raises(PeerUntrusted):
                    await _read_on(watch)
            with pytest.raises(PeerUntrusted):
                await channel.unary(HELLO, hello(), timeout=10)
        # A handshake may still be let through, see `server_credentials`; a call never is.
        refused: NodeError = PeerUntrusted("not asked yet")
        with trio.fail_after(30):
            while not isinstance(refused, PeerUnreachable):
                async with peer.channel(node, identity) as channel:
                    with pytest.raises((PeerUntrusted, PeerUnreachable)) as found:
                        await channel.unary(HELLO, hello(), timeout=10)
                refused = found.value

    run(work)
    # And it stays removed: pairing again needs a person who says so.
    file = tmp_path / "soon-removed.statements"
    assert "was removed here" in _fails(node, "peers", "pair", str(file))
    node.run("peers", "pair", str(file), "--restore-removed")
    node.run("peers", "remove", "soon-removed", "--yes")


def test_node_that_the_other_side_has_not_paired_learns_why(node: Node, tmp_path: Path) -> None:
    """Pairing has two halves; with one missing nothing flows, and `emix peers` says so."""
    lonely = Node(tmp_path, "lonely", "Lonely Clinic")
    lonely.make()
    lonely.start()
    try:
        node.run("id", "--export", str(tmp_path / "node.emix"), "--no-qr")
        lonely.run("peers", "pair", str(tmp_path / "node.emix"))
        wait_until(
            lambda: "not paired" in lonely.json("peers")["peers"][0]["problem"],
            "the reason is not shown",
        )
        assert lonely.json("peers")["peers"][0]["state"] == "unreachable"
    finally:
        lonely.stop()


async def _read_on(stream: Stream[Any, Any]) -> None:
    while await stream.read() is not None:
        pass


def _fails(node: Node, *arguments: str) -> str:
    with pytest.raises(CommandFailed) as caught:
        node.run(*arguments)
    return str(caught.value)


def test_calls_without_a_request_keep_the_introduction_service_only_for_a_while(
    node: Node, tmp_path: Path
) -> None:
    """More of them than it has places for; its connections end, and it answers again."""
    address = node.addresses["introduction"]
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port))).encode()
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.ssl_target_name_override", name_in(pem_to_der(pem))),
    )
    never = threading.Event()

    def silence() -> Iterator[bytes]:
        never.wait(60)
        return
        yield b""

    channels = [
        grpc.secure_channel(address, grpc.ssl_channel_credentials(pem), options) for _ in range(40)
    ]
    path = "/emix.introduction.v1.IntroductionService/GetStatements"
    try:
        held = [channel.stream_unary(path).future(silence()) for channel in channels * 2]
        wait_until(
            lambda: _cannot_ask(address), "so many calls do not fill the introduction service"
        )
        wait_until(lambda: not _cannot_ask(address), "it never answers again", 40)
        assert held
    finally:
        never.set()
        for channel in channels:
            channel.close()


def _cannot_ask(address: str) -> bool:
    try:
        run(lambda: IntroductionClient(Dialer()).fetch_statements(address))
    except NodeError:
        return True
    return False


# -- what, at the receiver ------------------------------------------------------------------


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _control(f: Forgery) -> Forgery:
    return f


def _chunk(f: Forgery) -> Forgery:
    return replace(f, chunks={name: _flipped(data) for name, data in f.chunks.items()})


def _chunk_too_short(f: Forgery) -> Forgery:
    return replace(f, chunks={name: data + b"x" for name, data in f.chunks.items()})


def _manifest(f: Forgery) -> Forgery:
    manifest = replace(f.manifest, body=_flipped(f.manifest.body))
    return replace(f, manifest=manifest)


def _manifest_signature(f: Forgery) -> Forgery:
    manifest = replace(f.manifest, signature=_flipped(f.manifest.signature))
    tampered = replace(f, manifest=manifest)
    return tampered.redelivered(manifest_digest=manifest.digest())


def _delivery(f: Forgery) -> Forgery:
    return replace(f, delivery=replace(f.delivery, body=_flipped(f.delivery.body)))


def _delivery_to_another(f: Forgery) -> Forgery:
    return f.redelivered(receiver=FacilityId(bytes(32)))


def _delivery_expired(f: Forgery) -> Forgery:
    return f.redelivered(created_time=1.0, expires_time=2.0)


def _delivery_count(f: Forgery) -> Forgery:
    return f.redelivered(instances=2)


def _delivery_too_long(f: Forgery) -> Forgery:
    return replace(f, delivery=replace(f.delivery, body=f.delivery.body + bytes(20_000)))


def _manifest_beyond_measure(f: Forgery) -> Forgery:
    return f.redelivered(manifest_bytes=400 * 2**20)


def _data_key(f: Forgery) -> Forgery:
    return replace(f, sealed_key=_flipped(f.sealed_key))


def _data_key_other(f: Forgery) -> Forgery:
    """Rightly sealed and rightly named, and not the key that the package commits to."""
    transfer_id = open_delivery(f.delivery).transfer_id
    return f.with_key(DataKey.new(), IDENTITY[0], transfer_id)


IDENTITY: list[Identity] = []


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (_control, ""),
        (_chunk, "chunk-damaged"),
        (_chunk_too_short, "chunk-damaged"),
        (_manifest, "bad-manifest"),
        (_manifest_signature, "bad-manifest"),
        (_delivery, "bad-delivery"),
        (_delivery_to_another, "bad-delivery"),
        (_delivery_expired, "bad-delivery"),
        (_delivery_count, "bad-manifest"),
        (_delivery_too_long, "bad-delivery"),
        (_manifest_beyond_measure, "bad-manifest"),
        (_data_key, "bad-data-key"),
        (_data_key_other, "bad-data-key"),
    ],
)
def test_receiver_refuses_what_was_tampered_with(
    node: Node,
    paired: tuple[HostilePeer, Identity],
    tamper: Callable[[Forgery], Forgery],
    code: str,
    request: pytest.FixtureRequest,
) -> None:
    peer, identity = paired
    IDENTITY[:] = [identity]
    study = 1000 + request.node.callspec.indices["tamper"]
    forgery = tamper(forge(peer, identity, study))
    last = run(lambda: _send(node, peer, identity, forgery))
    if not code:
        assert isinstance(last, ReceiptMessage)
        assert open_receipt(last.receipt).receiver == identity.facility_id
    else:
        assert isinstance(last, Problem)
        assert last.code == code
    held = node.json("studies", study_uid(study))["studies"]
    assert len(held) == (0 if code else 1)


def test_document_of_another_form_ends_the_stream(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    """A wrapper longer than any of ours is refused before anything in it is looked at."""
    peer, identity = paired
    forgery = forge(peer, identity, 3200)
    signer = replace(forgery.delivery.signer, node_cert=bytes(5_000))
    odd = replace(forgery, delivery=replace(forgery.delivery, signer=signer))

    async def work() -> None:
        with ungrouped():
            await _send(node, peer, identity, odd)

    with pytest.raises(DocumentError, match="malformed"):
        run(work)


def test_manifest_that_names_chunks_of_others_costs_them_nothing(
    node: Node, paired: tuple[HostilePeer, Identity], tmp_path: Path
) -> None:
    """Who ever received a study knows its chunks' names; naming them gains nothing."""
    peer, identity = paired
    victim = forge(peer, identity, 3500)
    assert isinstance(run(lambda: _send(node, peer, identity, victim)), ReceiptMessage)
    stolen = decode_body(victim.manifest.body).chunks[0]
    names = {"chunk_id": stolen.chunk_id, "sealed_bytes": stolen.sealed_bytes}
    thief = forge(peer, identity, 3501, chunk_changes=names)

    async def work() -> Any:
        async with (
            peer.channel(node, identity) as channel,
            peer.carry(channel, identity) as link,
        ):
            await link.send(Offer(thief.delivery, thief.sealed_key))
            await link.receive()
            await link.send(ManifestFrame(thief.manifest.encode()))
            wanted = await link.receive()
            # Wanted, though it is here: what is not wanted would tell what is.
            assert isinstance(wanted, Want)
            await link.send(ChunkFrame(stolen.chunk_id, victim.chunks[stolen.chunk_id.digest]))
            return await _last(link)

    last = run(work)
    assert isinstance(last, Problem)
    assert last.is_final
    node.run("store", "check", "--read-data")
    node.run("export", study_uid(3500), str(tmp_path / "out"))


async def _send(node: Node, peer: HostilePeer, identity: Identity, forgery: Forgery) -> Any:
    async with (
        peer.channel(node, identity) as channel,
        peer.carry(channel, identity) as link,
    ):
        return await forgery.send(link)


def _lies() -> Iterator[Any]:
    other = make_instance(5000, 1)
    yield pytest.param({"instance": other}, "bad-manifest", id="another-study-than-stated")
    yield pytest.param({"instance": b"MZ" + bytes(500)}, "bad-manifest", id="no-dicom")
    yield pytest.param({"entry_changes": {"digest": bytes(32)}}, "bad-manifest", id="digest")
    yield pytest.param(
        {"entry_changes": {"sop_instance_uid": "1.2.3"}}, "bad-manifest", id="sop-instance"
    )
    yield pytest.param(
        {"entry_changes": {"transfer_syntax_uid": "1.2.840.10008.1.2"}}, "bad-manifest", id="syntax"
    )
    yield pytest.param(
        {"chunk_changes": {"pieces_digest": bytes(32)}}, "chunk-damaged", id="plaintext"
    )
    yield pytest.param({"chunk_changes": {"number": 7}}, "chunk-damaged", id="wrong-place")


@pytest.mark.parametrize(("lie", "code"), list(_lies()))
def test_receiver_refuses_a_manifest_that_lies(
    node: Node,
    paired: tuple[HostilePeer, Identity],
    lie: dict[str, Any],
    code: str,
    request: pytest.FixtureRequest,
) -> None:
    """All signatures are right here; only what they sign is not so."""
    peer, identity = paired
    study = 2000 + request.node.callspec.indices["lie"]
    last = run(lambda: _send(node, peer, identity, forge(peer, identity, study, **lie)))
    assert isinstance(last, Problem)
    assert last.code == code
    assert last.is_final
    assert not node.json("studies", study_uid(study))["studies"]


def test_same_transfer_id_with_another_delivery_is_refused(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired
    forgery = forge(peer, identity, 3000)
    assert isinstance(run(lambda: _send(node, peer, identity, forgery)), ReceiptMessage)
    # Shown again, the same delivery gets the same receipt.
    assert isinstance(run(lambda: _send(node, peer, identity, forgery)), ReceiptMessage)
    last = run(lambda: _send(node, peer, identity, forgery.redelivered(note="other")))
    assert isinstance(last, Problem)
    assert last.code == "bad-delivery"


def test_second_manifest_for_a_package_is_refused_and_alarmed(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    """Equivocation: the same package, signed by its origin twice with different content."""
    peer, identity = paired
    forgery = forge(peer, identity, 3100)
    assert isinstance(run(lambda: _send(node, peer, identity, forgery)), ReceiptMessage)
    other = replace(decode_body(forgery.manifest.body), created_time=5.0)
    document = sign_manifest(other, peer.keys.signer)
    second = replace(forgery, manifest=document).redelivered(
        manifest_digest=document.digest(), manifest_bytes=len(document.encode())
    )
    second = second.with_key(forgery.key, identity, TransferId.new())
    last = run(lambda: _send(node, peer, identity, second))
    assert isinstance(last, Problem)
    assert last.code == "bad-manifest"
    assert any(e["kind"] == "alarm.equivocation" for e in node.json("audit")["entries"])
    assert any("alarm" in alarm for alarm in node.json("status")["alarms"])


# -- what, at the sender --------------------------------------------------------------------


@pytest.fixture
def waiting(
    node: Node,
    paired: tuple[HostilePeer, Identity],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> TransferId:
    """A transfer of the real node that waits for the hostile peer to collect it."""
    study = 4000 + zlib.crc32(request.node.name.encode()) % 10_000
    node.run("import", str(write_study(tmp_path / "in", study, 2)))
    sent = node.json("send", study_uid(study), "hostile")
    return TransferId.parse(sent["transfers"][0]["transfer_id"])


async def _collect(link: GrpcLink, transfer_id: TransferId) -> Offer:
    await link.send(Collect(transfer_id))
    offer = await link.receive()
    assert isinstance(offer, Offer)
    return offer


async def _last(link: GrpcLink) -> Any:
    """Return the sender's last word, past manifest and chunk frames."""
    while True:
        message = await link.receive()
        if type(message).__name__ not in ("ManifestFrame", "ChunkFrame"):
            return message


def test_sender_refuses_a_chunk_that_it_never_offered(
    node: Node, paired: tuple[HostilePeer, Identity], waiting: TransferId
) -> None:
    peer, identity = paired

    async def work() -> Any:
        async with (
            peer.channel(node, identity) as channel,
            peer.carry(channel, identity) as link,
        ):
            await _collect(link, waiting)
            await link.send(Answer(AnswerKind.ACCEPTED, is_manifest_needed=True))
            await link.send(Want((ChunkId(bytes(32)),)))
            return await _last(link)

    last = run(work)
    assert isinstance(last, Problem)
    assert last.code == "not-offered"


def test_sender_does_not_offer_a_transfer_to_another_peer(
    node: Node, waiting: TransferId, tmp_path: Path
) -> None:
    other = HostilePeer(tmp_path, "other-peer")
    identity = other.pair_with(node)

    async def work() -> Any:
        async with (
            other.channel(node, identity) as channel,
            other.carry(channel, identity) as link,
        ):
            await link.send(Collect(waiting))
            return await link.receive()

    last = run(work)
    assert isinstance(last, Problem)
    assert last.code == "not-found"
    node.run("peers", "remove", "other-peer", "--yes")


@pytest.mark.parametrize("tamper", ["nothing", "signature", "count", "signer"])
def test_sender_refuses_a_receipt_that_was_tampered_with(
    node: Node,
    paired: tuple[HostilePeer, Identity],
    waiting: TransferId,
    tamper: str,
    tmp_path: Path,
) -> None:
    peer, identity = paired
    third = HostilePeer(tmp_path, "third")

    async def work() -> Any:
        async with (
            peer.channel(node, identity) as channel,
            peer.carry(channel, identity) as link,
        ):
            offer = await _collect(link, waiting)
            await link.send(Answer(AnswerKind.ACCEPTED, is_manifest_needed=True))
            frame = await link.receive()
            assert isinstance(frame, ManifestFrame)
            manifest = open_manifest(Document.decode(frame.data))
            delivery = open_delivery(offer.delivery)
            receipt = Receipt(
                delivery.transfer_id,
                offer.delivery.digest(),
                delivery.manifest_digest,
                delivery.package_id,
                third.facility if tamper == "signer" else peer.facility,
                len(manifest.instances) + (tamper == "count"),
                manifest.plaintext_bytes,
                1_800_000_000.0,
            )
            signer = (third if tamper == "signer" else peer).keys.signer
            document = sign_receipt(receipt, signer)
            if tamper == "signature":
                document = replace(document, signature=_flipped(document.signature))
            await link.send(ReceiptMessage(document))
            return await _last(link)

    last = run(work)
    if tamper == "nothing":
        assert isinstance(last, ReceiptKept)
    else:
        assert isinstance(last, Problem)
        assert last.code == "bad-receipt"
    state = next(
        t["state"] for t in node.json("transfers")["transfers"] if t["transfer_id"] == str(waiting)
    )
    assert state == ("delivered" if tamper == "nothing" else "failed")


def test_idle_offers_of_one_peer_stop_nobody_else(
    node: Node, paired: tuple[HostilePeer, Identity], tmp_path: Path
) -> None:
    """Manifests of instances over several chunks, and then silence."""
    peer, identity = paired
    noise = make_dataset(3400, 1, size=1500)
    noise.PixelData = random.Random(1).randbytes(1500 * 1500 * 2)
    large = encode(noise)
    folder = write_study(tmp_path / "s", 3450, 2)

    async def offer_and_wait(ready: trio.Semaphore, study: int) -> None:
        forgery = forge(peer, identity, study, instance=large, split_at=len(large) // 2)
        async with (
            peer.channel(node, identity) as channel,
            peer.carry(channel, identity) as link,
        ):
            await link.send(Offer(forgery.delivery, forgery.sealed_key))
            await link.receive()
            await link.send(ManifestFrame(forgery.manifest.encode()))
            assert isinstance(await link.receive(), Want)
            ready.release()
            await trio.sleep_forever()

    async def work() -> None:
        ready = trio.Semaphore(0)
        async with trio.open_nursery() as nursery:
            for n in range(4):
                nursery.start_soon(offer_and_wait, ready, 3400 + n)
            for _ in range(4):
                await ready.acquire()
            with trio.fail_after(30):
                await trio.to_thread.run_sync(node.run, "import", str(folder))
            nursery.cancel_scope.cancel()

    run(work)
    assert node.json("studies", study_uid(3450))["studies"]


def test_chunk_frame_that_was_not_wanted_is_refused(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired
    forgery = forge(peer, identity, 3300)

    async def work() -> Any:
        async with (
            peer.channel(node, identity) as channel,
            peer.carry(channel, identity) as link,
        ):
            await link.send(Offer(forgery.delivery, forgery.sealed_key))
            await link.receive()
            await link.send(ChunkFrame(ChunkId(bytes(32)), b"x"))
            return await _last(link)

    last = run(work)
    assert isinstance(last, Problem)
    assert last.code == "protocol-remote"
