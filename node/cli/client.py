"""One command's connection to its node."""

import getpass
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from emix.admin.v1 import admin_pb2 as pb
from google.protobuf.message import Message

from node import safe_paths
from node.errors import PeerTimeout, PeerUnreachable, UsageError
from node.rpc.blocking import BlockingChannel, open_blocking_channel
from node.rpc.bounds import OWN
from node.rpc.methods import Method, methods
from node.rpc.unix import unix_address
from node.terminal.commands import home_of

DEFAULT_HOME = "~/.emix"

_ANSWER_SECONDS = 120.0
# A whole copy of the home; every chunk of a large study.
_SLOW_SECONDS = {"NodeService.Backup": 12 * 3600.0, "StudyService.DeleteStudy": 3600.0}

_METHODS: dict[str, Method[Any, Any]] = {
    f"{service.name}.{m.name}": m
    for service in pb.DESCRIPTOR.services_by_name.values()
    for m in methods(service, answer=OWN)
}


class Client:
    """Calls of the admin services, by `Service.Method`."""

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel

    def call(self, name: str, request: Message) -> Any:
        """Call a method that takes one message; return its answer, the whole of a list.

        Raises:
            PeerTimeout: the node did not answer within the time that such a call may take.
        """
        seconds = _SLOW_SECONDS.get(name, _ANSWER_SECONDS)
        try:
            answer = self._channel.whole(_METHODS[name], request, timeout=seconds)
        except PeerTimeout as exc:
            if exc.is_told:  # of another node, by this one
                raise
            raise PeerTimeout(
                f"the node did not answer within {seconds:.0f} s; what it was asked to do may go"
                " on there. Look at its log, and at `emix doctor`"
            ) from exc
        match answer:
            case pb.ListStudiesResponse():
                _join(answer.studies)
            case pb.GetStudyResponse():
                _join(answer.sources)
        return answer

    def stream(
        self, name: str, requests: Message | Iterable[Message], *, timeout: float | None = None
    ) -> AbstractContextManager[Iterator[Any]]:
        """Run a streaming call for the time of the block; see `BlockingChannel.stream`.

        How long it takes nobody knows, so the node is asked first whether it answers at all.
        """
        self.call("NodeService.GetIdentity", pb.GetIdentityRequest())
        return self._channel.stream(_METHODS[name], requests, timeout=timeout)


def _join(studies: Any) -> None:
    """Put together the entries of each study: one of very many packages comes in several."""
    whole: list[pb.Study] = []
    for study in studies:
        last = whole[-1] if whole else pb.Study()
        if (last.study_instance_uid, last.origin) == (study.study_instance_uid, study.origin):
            last.packages.extend(study.packages)
            last.series_entries.extend(study.series_entries)
        else:
            whole.append(study)
    if len(whole) < len(studies):
        copies = [pb.Study.FromString(study.SerializeToString()) for study in whole]
        del studies[:]
        studies.extend(copies)


def operator() -> str:
    """Return who runs the command, for the audit log: plain ASCII, as metadata must be.

    The node knows the user of this process; here is who became that user.
    """
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return name.encode("ascii", "replace").decode()


def home_path(context: click.Context) -> Path:
    """Return the home that the command is about."""
    return home_of(context.find_root().params.get("home") or DEFAULT_HOME, "EMIX_HOME")


@contextmanager
def node_client(context: click.Context) -> Generator[Client]:
    """Connect to the node for the time of the block.

    Raises:
        NodeError: what the node raised; `PeerUnreachable` with advice if it does not run.
    """
    home = home_path(context)
    socket = home / "admin.sock"
    if not (home / "keyring").exists():
        raise UsageError(
            f"{home} is not a node's home; make one with `emix init`, or name it with --home"
        )
    if not socket.exists():
        raise PeerUnreachable(f"no node runs in {home}; start it: emix --home {home} serve")
    with suppress(OSError):  # then the connection says what is wrong
        # Whoever could put another socket there would be told what this command says.
        safe_paths.real_folder(home, owner=home.stat().st_uid)
    try:
        metadata = (("emix-operator", operator()),)
        address = unix_address(socket.resolve())
        with open_blocking_channel(address, metadata, largest_answer=OWN.size) as channel:
            yield Client(channel)
    except PeerUnreachable as exc:
        if exc.is_told:  # of another node, by this one
            raise
        raise PeerUnreachable(f"the node in {home} does not answer; is it running?") from exc


def run_call(context: click.Context, name: str, request: Message) -> Any:
    """Call one method of the node and return its answer."""
    with node_client(context) as client:
        return client.call(name, request)


__all__: Sequence[str] = ("Client", "home_path", "node_client", "run_call")
