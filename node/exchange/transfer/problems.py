"""Problems on a link: reported to the other side, received from it, final or not."""

from typing import TypeVar

import trio

from node.documents.messages import Message, Problem
from node.errors import (
    ChunkDamaged,
    ChunkNotFound,
    DocumentError,
    NodeError,
    NotFound,
    PeerRefused,
    PeerUnreachable,
    RemoteProtocolError,
    StoreError,
    by_code,
    public_text,
)
from node.exchange.transfer.links import Link

M = TypeVar("M")


async def expect(link: Link, kind: type[M]) -> M:
    """Return the next message, which must be of one kind.

    Raises:
        NodeError: the other side reports a problem instead.
        RemoteProtocolError: it is of another kind.
        PeerUnreachable: the other side ended the stream.
    """
    return held_as(await link.receive(), kind)


def held_as(message: Message | None, kind: type[M]) -> M:
    """Return a message that must be of one kind; see `expect`."""
    if isinstance(message, kind):
        return message
    if message is None:
        raise PeerUnreachable("the other side ended the stream early")
    if isinstance(message, Problem):
        raise problem_error(message)
    raise RemoteProtocolError(f"unexpected {type(message).__name__} message")


def problem_error(problem: Problem) -> NodeError:
    """Return the error that a peer reports."""
    text = f"the other side reports: {problem.message}"
    if problem.is_final and problem.code == "peer-refused":
        return PeerRefused(problem.message)
    error = by_code(problem.code)(text)
    error.is_final = problem.is_final
    return error


def is_final_error(error: NodeError) -> bool:
    """Return whether no second try can mend this; a reported one says so itself."""
    if error.is_final is not None:
        return error.is_final
    if isinstance(error, ChunkDamaged | ChunkNotFound | NotFound):
        return True
    if isinstance(error, StoreError):
        return False
    return isinstance(error, DocumentError | RemoteProtocolError | PeerRefused)


def is_ours(error: NodeError) -> bool:
    """Return whether this node's own store failed, which nobody at the other side can help."""
    is_stated = error.is_final is not None
    return isinstance(error, StoreError) and not is_stated and not is_final_error(error)


async def send_error(link: Link, error: NodeError, *, is_final: bool) -> None:
    """Send an error to the other side, without details of this machine (`errors.public_text`)."""
    await send_problem(link, Problem(error.code.value, public_text(error), is_final=is_final))


async def send_problem(link: Link, problem: Problem) -> None:
    """Send a problem to the other side; do nothing if the link is broken."""
    with trio.move_on_after(5, shield=True):
        try:
            await link.send(problem)
        except NodeError:
            return
