"""Recipient, note and priority: kept where nobody says otherwise, promised anew where they do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from node.documents.delivery import open_delivery
from node.documents.signed import Document
from node.domain.ids import FacilityId
from node.domain.transfers import Priority, State, Transfer
from node.exchange.transfer.transfers import SendOrder, Transfers
from node.store.context import StoreContext
from node.store.transfers import TransferStore
from tests.node.store.test_exporting import bring
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor
from tests.support.dicom_files import make_instance, study_uid

STAT = ("Dr. Jones", "second opinion", Priority.STAT)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


class Sender:
    """Sends the one study to one facility."""

    def __init__(self, context: StoreContext) -> None:
        unused = cast("Any", None)
        self._seal_key = context.secrets.seal_keys[0].public
        self.store = TransferStore(context)
        self._transfers = Transfers(
            signer=context.signer,
            book=self.store,
            sender=unused,
            receiver=unused,
            links=unused,
            offer_seconds=3600,
        )

    async def send(self, **words: Any) -> tuple[list[Transfer], list[Transfer]]:
        order = SendOrder(
            study=study_uid(1),
            receiver=FacilityId(bytes(32)),
            seal_key=self._seal_key,
            actor=actor("test"),
            **words,
        )
        sent = await self._transfers.send(order)
        return list(sent.added), list(sent.known)


@pytest.fixture
async def sender(context: StoreContext, tmp_path: Path) -> Sender:
    await bring(context, tmp_path / "s", {"1": make_instance(1, 1)})
    return Sender(context)


def words_of(row: Transfer) -> tuple[str, str, Priority]:
    """Return what the signed delivery says, and hold the row against it."""
    said = open_delivery(Document.decode(row.delivery))
    assert (said.recipient, said.note, said.priority) == (row.recipient, row.note, row.priority)
    return row.recipient, row.note, row.priority


async def test_what_is_sent_again_says_what_it_said_before(sender: Sender) -> None:
    recipient, note, priority = STAT
    (first,), _ = await sender.send(recipient=recipient, note=note, priority=priority)
    await sender.store.set_state(first, State.DELIVERED)
    (again,), _ = await sender.send(is_again=True)
    assert words_of(again) == STAT
    await sender.store.set_state(again, State.FAILED)
    (third,), _ = await sender.send(is_again=True, note="")
    assert words_of(third) == ("Dr. Jones", "", Priority.STAT)


@pytest.mark.parametrize("is_delivered", [True, False])
async def test_other_words_are_a_new_delivery_of_what_is_there(
    sender: Sender, *, is_delivered: bool
) -> None:
    (first,), _ = await sender.send()
    assert words_of(first) == ("", "", Priority.ROUTINE)
    if is_delivered:
        await sender.store.set_state(first, State.DELIVERED)
    added, known = await sender.send()
    assert (added, [row.id for row in known]) == ([], [first.id])
    (changed,), known = await sender.send(note="to the tumour board", priority=Priority.STAT)
    assert (words_of(changed), known) == (("", "to the tumour board", Priority.STAT), [])
    # Said again, or left open, they are the same.
    added, known = await sender.send(note="to the tumour board")
    assert (added, [row.id for row in known]) == ([], [changed.id])
    added, known = await sender.send()
    assert (added, [row.id for row in known]) == ([], [changed.id])


async def test_what_was_taken_back_says_nothing_any_more(sender: Sender) -> None:
    (first,), _ = await sender.send(note="the wrong patient's")
    await sender.store.take_back(first, actor("test"))
    (again,), _ = await sender.send()
    assert words_of(again) == ("", "", Priority.ROUTINE)
