"""The node opens no path for who has other rights than it: the answer has them open it."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb
from google.protobuf.descriptor import Descriptor

from node.admin.exports import Exporting
from node.admin.studies import StudyHandlers
from node.domain.actors import Visitor

OTHER = os.geteuid() + 61_234
_NAMED_FOR_THE_LOG_ONLY = {"BackupRequest.destination", "ImportFile.sources"}
_OPENED = {"ImportPaths.paths", "ExportStudyRequest.directory"}
"""Of these the tests are; what is added to them needs one."""


class Caller:
    """A call of somebody's, with what was answered."""

    def __init__(self, uid: int, request: Any) -> None:
        self.caller = Visitor(uid, "", 1)
        self.metadata = {"emix-operator": "root"}
        self.request = request
        self.got: list[Any] = []

    async def read(self) -> Any:
        return self.request

    async def write(self, message: Any) -> None:
        self.got.append(message)


class _Reached(Exception):
    """The handler goes on to do what it was asked for."""


class _Parts:
    def __getattr__(self, _: str) -> Any:
        raise _Reached


async def ask(handler: str, uid: int, request: Any) -> list[Any]:
    call = Caller(uid, request)
    parts: Any = _Parts()
    exporting = Exporting(parts, parts, Path())
    handlers = StudyHandlers(parts, parts, parts, parts, exporting, parts)
    await getattr(handlers, handler)(call)
    return call.got


async def test_paths_of_another_user_are_not_read(tmp_path: Path) -> None:
    """Nor is it told which of them are there."""
    paths = [str(tmp_path), str(tmp_path / "nothing")]
    request = pb.ImportRequest(paths=pb.ImportPaths(paths=paths))
    assert [list(m.unreadable.paths) for m in await ask("_import", OTHER, request)] == [paths]


@pytest.mark.parametrize("is_compared", [True, False])
async def test_directory_of_another_user_is_not_written(tmp_path: Path, is_compared: bool) -> None:
    above = tmp_path.stat()
    request = pb.ExportStudyRequest(study="s1", directory=str(tmp_path / "out"))
    if is_compared:
        request.parent_device, request.parent_inode = above.st_dev, above.st_ino
    assert [m.unwritable for m in await ask("_export", OTHER, request)] == [True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uid", sorted({0, os.geteuid()}))
async def test_paths_of_root_and_of_the_nodes_own_user_are_opened(tmp_path: Path, uid: int) -> None:
    with pytest.raises(_Reached):
        await ask("_import", uid, pb.ImportRequest(paths=pb.ImportPaths(paths=[str(tmp_path)])))
    request = pb.ExportStudyRequest(study="s1", directory=str(tmp_path / "out"))
    with pytest.raises(_Reached):
        await ask("_export", uid, request)


def test_no_other_request_names_a_path() -> None:
    """What looks like one is known; a new one has to be refused likewise."""
    words = ("path", "director", "folder", "file", "destination", "source", "home")
    found = {
        f"{message.name}.{field.name}"
        for message in _requested()
        for field in message.fields
        if field.type == field.TYPE_STRING and any(word in field.name for word in words)
    }
    assert found == _OPENED | _NAMED_FOR_THE_LOG_ONLY


def _requested() -> Collection[Descriptor]:
    """Return the messages that callers send, and those in them."""
    left: list[Descriptor] = [
        method.input_type
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    found: dict[str, Descriptor] = {}
    while left:
        message = left.pop()
        if message.full_name not in found and message.file == pb.DESCRIPTOR:
            found[message.full_name] = message
            left += [field.message_type for field in message.fields if field.message_type]
    return found.values()
