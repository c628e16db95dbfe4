"""One command's connection to its node."""

import getpass
import grp
import os
import shlex
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from emix.admin.v1 import admin_pb2 as pb
from google.protobuf.message import Message

from node.cli.homes import home_path
from node.errors import ConfigError, PeerTimeout, PeerUnreachable, UsageError
from node.rpc.blocking import BlockingChannel, open_blocking_channel
from node.rpc.bounds import OWN
from node.rpc.methods import Method, methods
from node.rpc.unix import unix_address
from node.system import safe_paths

_ANSWER_SECONDS = 120.0
_SLOW_SECONDS = {"StudyService.DeleteStudy": 3600.0}  # every chunk of a large study

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
            if exc.is_remote:  # of another node, by this one
                raise
            raise PeerTimeout(
                f"the node did not answer within {seconds:.0f} s; it may still work. Check its"
                " log, and run `emix doctor`"
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

        Its duration is unknown, so a short call first checks that the node answers.
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
    """Return the name of the person who runs the command, for the audit log, in ASCII.

    The node knows the user of this process; this names the user who became that user by sudo.
    """
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return name.encode("ascii", "replace").decode()


def _shut_out(home: Path) -> str:
    """Return why this user may not use another user's home; empty where they may."""
    try:
        found = home.stat()
    except OSError:  # then what is above it says why
        return ""
    if found.st_uid == os.geteuid() or os.access(home, os.X_OK, effective_ids=True):
        return ""
    owner, me = safe_paths.user_text(found.st_uid), safe_paths.user_name(os.geteuid())
    instead = safe_paths.by_owner(home, "emix ...")
    if not found.st_mode & stat.S_IXGRP:
        return (
            f"{home} belongs to {owner}, and only that user and root may use it: the node has not"
            " been started since it was made, or emix.toml names no group in [admin]. Ask that user"
            f" or root to run this: {instead}"
        )
    group, members = _group(found.st_gid)
    if me in members:
        return f"{me} was added to the group {group} after this log-in: log in again"
    return (
        f"{me} is not in the group {group}, whose members may use the node of {owner}. Ask root to"
        f" add you (usermod -aG {group} {me}) and log in again, or run this: {instead}"
    )


def _group(number: int) -> tuple[str, list[str]]:
    """Return a group's name, its number where it has none, and who is listed in it."""
    try:
        found = grp.getgrgid(number)
    except (KeyError, OSError):
        return str(number), []
    return found.gr_name, found.gr_mem


@contextmanager
def node_client(context: click.Context) -> Generator[Client]:
    """Connect to the node for the time of the block.

    Raises:
        NodeError: what the node raised; `PeerUnreachable` with advice if it does not run.
    """
    home = home_path(context)
    socket = home / "admin.sock"
    if why := _shut_out(home):
        raise ConfigError(why)
    if not (home / "keyring").exists():
        raise UsageError(
            f"{home} is not a node's home; make one with `emix init`, or name it with --home"
        )
    if not socket.exists():
        start = safe_paths.by_owner(home, f"emix --home {shlex.quote(str(home))} serve")
        raise PeerUnreachable(f"no node runs in {home}; start it: {start}")
    with suppress(OSError):  # then the connection says what is wrong
        # A user who could replace the socket would receive the requests of this command.
        safe_paths.real_folder(home, owner=home.stat().st_uid)
    try:
        metadata = (("emix-operator", operator()),)
        address = unix_address(socket.resolve())
        with open_blocking_channel(address, metadata, largest_answer=OWN.size) as channel:
            yield Client(channel)
    except PeerUnreachable as exc:
        if exc.is_remote:  # of another node, by this one
            raise
        raise PeerUnreachable(f"the node in {home} does not answer; check that it runs") from exc


def run_call(context: click.Context, name: str, request: Message) -> Any:
    """Call one method of the node and return its answer."""
    with node_client(context) as client:
        return client.call(name, request)


__all__: Sequence[str] = ("Client", "node_client", "run_call")
