"""A fake of the node's admin service, for tests of what commands send and what they print.

node = AnsweringNode(tmp_path, {"StudyService.ListHeld": pb.ListHeldResponse()})
done = node.run("held")
assert node.names == ["StudyService.ListHeld"]
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click.testing
import pytest
from click.testing import CliRunner, Result
from emix.admin.v1 import admin_pb2 as pb
from google.protobuf.message import Message

from node.cli import client
from node.cli.main import cli
from node.errors import NodeError
from node.rpc.methods import Method

Answer = Message | NodeError | Sequence[Message | NodeError] | Callable[[Any], Any]
"""What a method answers: see `AnsweringNode`."""

IDENTITY = "NodeService.GetIdentity"
"""What a command calls before each stream, to see that the node answers."""


class Sent(NamedTuple):
    """A request as it arrived, with the method's name and the seconds that the call may take."""

    name: str
    request: Any
    seconds: float | None


class AnsweringNode:
    """Runs commands in a home, and answers their calls with what the test gave.

    An answer is one of these:

    - a message;
    - an error of `node.errors`: the node raises it;
    - for a stream or a list: a sequence of messages, which an error may end;
    - a function that returns one of these. It takes the request; if the method takes a stream of
      requests, it takes an iterator over them. It may be a generator.

    Of a stream of requests the first is read before the answers; the command's end of the block
    reads the others. A method without an answer fails the test.

    Attributes:
        home: The node's home.
        answers: By `Service.Method`; may be changed between commands.
        sent: All requests, in the order in which they arrived.
        metadata: What the last connection sends with each call.
        broken: What each call raises, not as the node's word but as the connection's; or None.
    """

    def __init__(self, home: Path, answers: Mapping[str, Answer] | None = None) -> None:
        self.home = home
        self.answers: dict[str, Answer] = {IDENTITY: pb.GetIdentityResponse(), **(answers or {})}
        self.sent: list[Sent] = []
        self.metadata: dict[str, str] = {}
        self.broken: NodeError | None = None
        home.mkdir(exist_ok=True)
        for name in ("keyring", "admin.sock"):
            (home / name).touch()

    @property
    def names(self) -> list[str]:
        """The method of each request, in order; without the calls before each stream."""
        return [sent.name for sent in self.sent if sent.name != IDENTITY]

    def requests(self, name: str) -> list[Any]:
        """Return the requests to a method, in order."""
        return [sent.request for sent in self.sent if sent.name == name]

    def run(self, *arguments: str, typed: str | None = None, width: int = 0) -> Result:
        """Run a command of this home; see `run_emix`."""
        with self.connected():
            return run_emix(self.home, *arguments, typed=typed, width=width)

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Run a command with --json, check its exit status, and return what it prints."""
        done = self.run(*arguments, "--json")
        assert done.exit_code == status, done.output
        return json.loads(done.stdout)

    def error(self, *arguments: str) -> dict[str, Any]:
        """Run a command with --json that fails, and return the error that it prints last."""
        done = self.run(*arguments, "--json")
        error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
        assert done.exit_code == error["exit_status"] != 0, done.output
        return error

    @contextmanager
    def connected(self) -> Generator[None]:
        """Have connections of the commands reach this node for the time of the block."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "open_blocking_channel", self._open)
            yield

    @contextmanager
    def _open(
        self, address: str, metadata: Sequence[tuple[str, str]], *, largest_answer: int
    ) -> Generator["_Channel"]:
        assert address == f"unix:{(self.home / 'admin.sock').resolve()}"
        assert largest_answer > 0
        self.metadata = dict(metadata)
        yield _Channel(self)

    def receive(self, method: Method[Any, Any], request: Message, seconds: float | None) -> Any:
        """Keep a request, as the node would parse it, and return it."""
        if self.broken is not None:
            raise self.broken
        assert isinstance(request, method.request), f"{method.path} takes no {type(request)}"
        name = name_of(method)
        assert name in self.answers, f"{name} was called; the test has no answer for it"
        received = method.request.FromString(request.SerializeToString())
        self.sent.append(Sent(name, received, seconds))
        return received

    def respond(self, method: Method[Any, Any], request: Any) -> Iterator[Any]:
        """Yield the responses to a request, or to an iterator of requests."""
        answer = self.answers[name_of(method)]
        if callable(answer):
            answer = answer(request)
        for one in (answer,) if isinstance(answer, Message | NodeError) else answer:
            if isinstance(one, NodeError):
                one.is_remote = True
                raise one
            assert isinstance(one, method.response), f"{method.path} returns no {type(one)}"
            yield method.parse_answer(one.SerializeToString())


class _Channel:
    """What a command has in place of a `BlockingChannel`."""

    def __init__(self, node: AnsweringNode) -> None:
        self._node = node

    def whole(
        self, method: Method[Any, Any], request: Message, *, timeout: float | None = None
    ) -> Any:
        received = self._node.receive(method, request, timeout)
        pages = list(self._node.respond(method, received))
        assert method.is_response_stream or len(pages) == 1, f"{method.path} returns one message"
        whole = method.response()
        for page in pages:
            whole.MergeFrom(page)
        return whole

    @contextmanager
    def stream(
        self,
        method: Method[Any, Any],
        requests: Message | Iterable[Message],
        *,
        timeout: float | None = None,
    ) -> Generator[Iterator[Any]]:
        node = self._node
        if not method.is_request_stream:
            assert isinstance(requests, Message)
            yield node.respond(method, node.receive(method, requests, timeout))
            return
        given = iter((requests,) if isinstance(requests, Message) else requests)
        received = (node.receive(method, request, timeout) for request in given)
        if callable(node.answers.get(name_of(method))):
            yield node.respond(method, received)
        else:
            next(received)
            yield node.respond(method, None)
        for _ in received:
            pass


def name_of(method: Method[Any, Any]) -> str:
    """Return a method's name as `Service.Method`."""
    service = method.path.split("/")[1].rpartition(".")[2]
    return f"{service}.{method.name}"


def run_emix(home: Path, *arguments: str, typed: str | None = None, width: int = 0) -> Result:
    """Run `emix --home HOME ARGUMENTS`; an error that is none of ours fails the test.

    Args:
        home: The home.
        arguments: The command and its arguments.
        typed: What a person types at a terminal; if None, there is no terminal to ask at.
        width: If not 0, standard output is a terminal with so many columns.
    """
    terminals = {"<stdin>": typed is not None, "<stdout>": width > 0}

    def isatty(stream: Any) -> bool:
        return terminals.get(stream.name, False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.testing._NamedTextIOWrapper, "isatty", isatty)
        return CliRunner(env={"COLUMNS": str(width) if width else None}).invoke(
            cli,
            ["--home", str(home), *arguments],
            input=typed,
            prog_name="emix",
            catch_exceptions=False,
        )


def widest(text: str) -> int:
    """Return how many characters the longest line of a text has."""
    return max(map(len, text.splitlines()), default=0)
