"""The door to the admin services: what it knows of a caller never keeps the caller waiting."""

import os
import pwd
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from node.rpc import door as module
from node.rpc.door import Door, opened_door


@asynccontextmanager
async def served(folder: Path) -> AsyncGenerator[tuple[Door, Path]]:
    """Have a door before a server that sends back what it gets."""

    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    path = folder / "admin.sock"
    async with opened_door(folder / "inside") as door, trio.open_nursery() as nursery:
        inner = trio.socket.socket(trio.socket.AF_UNIX)
        await inner.bind(door.inside.removeprefix("unix:"))
        inner.listen()
        nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(inner)])
        async with door.accepting(path):
            yield door, path
        nursery.cancel_scope.cancel()


async def call(door: Door, path: Path) -> str:
    """Return the name under which a caller is known."""
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"x")
        assert await stream.receive_some(1) == b"x"
        (visitor,) = door._visitors.values()
    while door._visitors:  # its end is heard of
        await trio.lowlevel.checkpoint()
    assert (visitor.uid, visitor.pid) == (os.getuid(), os.getpid())
    return visitor.name


async def test_user_whose_name_never_comes_is_let_in_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do such lookups take the threads that the node needs."""
    monkeypatch.setattr(module, "_NAME_SECONDS", 0.2)
    monkeypatch.setattr(module, "_NAME_KEPT_SECONDS", 0.0)
    is_over, threads = threading.Event(), trio.to_thread.current_default_thread_limiter()

    def hang(_: int) -> pwd.struct_passwd:
        is_over.wait(60)
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", hang)
    try:
        with trio.fail_after(20):
            async with served(tmp_path) as (door, path):
                for _ in range(3):
                    assert await call(door, path) == ""
                assert threads.borrowed_tokens == 0
    finally:
        is_over.set()


async def test_name_of_a_user_is_asked_for_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, plain = [], pwd.getpwuid

    def counted(uid: int) -> pwd.struct_passwd:
        asked.append(uid)
        return plain(uid)

    monkeypatch.setattr(pwd, "getpwuid", counted)
    async with served(tmp_path) as (door, path):
        names = [await call(door, path) for _ in range(3)]
    assert names == [plain(os.getuid()).pw_name] * 3
    assert asked == [os.getuid()]
