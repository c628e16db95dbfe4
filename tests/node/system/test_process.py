"""A server's signals: asked once it takes leave, asked twice it does not; terminal, systemd."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from node.system.process import Stop, notify, run_until_signal
from tests.support.nodes import wait_until


@pytest.mark.parametrize("times", [1, 2])
async def test_second_signal_waits_for_no_leave(times: int) -> None:
    said: list[str] = []

    async def serve(stop: Stop) -> None:
        said.append("serves")
        await stop.wait()
        said.append("leaves")
        for _ in range(times - 1):
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()  # nobody goes
        said.append("has left")

    async def send() -> None:
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGTERM)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await run_until_signal(serve)
    assert said == ["serves", "leaves", *(["has left"] if times == 1 else [])]


async def test_signal_ends_a_server_that_has_not_begun_to_wait() -> None:
    async def serve(_: Stop) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()  # a database that does not answer, say

    with trio.fail_after(20):
        await run_until_signal(serve)


async def test_hang_up_asks_for_the_settings_and_ends_nothing() -> None:
    reloaded = trio.Event()

    async def serve(stop: Stop) -> None:
        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                await stop.wait_reload()
                reloaded.set()
                os.kill(os.getpid(), signal.SIGTERM)

            nursery.start_soon(reload)
            os.kill(os.getpid(), signal.SIGHUP)
            await stop.wait()

    with trio.fail_after(20):
        await run_until_signal(serve)
    assert reloaded.is_set()


async def test_hang_up_that_nobody_waits_for_is_ignored() -> None:
    async def serve(stop: Stop) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

    with trio.fail_after(20):
        await run_until_signal(serve)


_SERVER = """
import os, select, sys, structlog, trio, trio.testing
from node.sandbox import children
from node.system.process import Stop, run_until_signal
from node.telemetry.logs import configure_logs

async def reload(stop, out):
    while True:
        await stop.wait_reload()
        print("reloads", file=out, flush=True)

async def serve(stop):
    with open(sys.argv[1], "a") as out:
        given, kept = os.pipe()
        waits_for_text = children.reading("tokenize", given=os.fdopen(given, "rb"))
        output = waits_for_text.__enter__()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, stop, out)
            await trio.testing.wait_all_tasks_blocked()
            print("serves", file=out, flush=True)
            await stop.wait()
            nursery.cancel_scope.cancel()
        if not select.select([output], [], [], 0.5)[0]:  # no end of what it writes
            print("has a child", file=out, flush=True)
        waits_for_text.__exit__(None, None, None)
        structlog.get_logger().info("to a terminal that is gone")
        print("leaves", file=out, flush=True)

configure_logs("info")
trio.run(run_until_signal, serve)
print("has ended", file=open(sys.argv[1], "a"), flush=True)
"""


def in_terminal(out: Path, *prefix: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server in a terminal of its own; return it, and the terminal's other end."""
    ours, theirs = os.openpty()
    command = [*prefix, sys.executable, "-c", _SERVER, str(out)]
    # The tests themselves may run under nohup.
    shell = ["env", "--default-signal=HUP", "setsid", "--ctty", *command]
    try:
        # nohup writes to the folder that it was started in.
        process = subprocess.Popen(
            shell, cwd=out.parent, stdin=theirs, stdout=theirs, stderr=theirs
        )
    finally:
        os.close(theirs)
    wait_until(lambda: out.exists() and "serves" in out.read_text(), "it does not serve")
    return process, ours


def test_closed_terminal_ends_a_server_cleanly(tmp_path: Path) -> None:
    process, terminal = in_terminal(tmp_path / "out")
    os.kill(process.pid, signal.SIGHUP)  # by a person, who wants the settings read
    os.close(terminal)
    assert process.wait(20) == 0
    lines = (tmp_path / "out").read_text().split("\n")
    assert [line for line in lines[1:] if line not in ("reloads", "has a child")] == [
        "leaves",
        "has ended",
        "",
    ]


def test_server_that_nohup_started_outlives_its_terminal(tmp_path: Path) -> None:
    process, terminal = in_terminal(tmp_path / "out", "nohup")
    said = (tmp_path / "out").read_text
    os.kill(process.pid, signal.SIGHUP)  # by a person, who wants the settings read
    wait_until(lambda: said().count("reloads") == 1, "it does not reload")
    os.close(terminal)  # the kernel's own hang-up
    wait_until(lambda: said().count("reloads") == 2, "it does not reload")
    os.killpg(process.pid, signal.SIGHUP)  # as a shell hangs up on all of a job
    wait_until(lambda: said().count("reloads") == 3, "it does not reload")
    process.terminate()
    assert process.wait(20) == 0
    assert said().split("\n")[4:] == ["has a child", "leaves", "has ended", ""]


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_service_manager_is_told(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify") if kind == "path" else "")
        name = manager.getsockname()
        address = name if kind == "path" else "@" + name[1:].decode()
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1", "STATUS=it serves")
        assert manager.recv(100) == b"READY=1\nSTATUS=it serves"
    notify("STOPPING=1")  # to one that has gone
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    notify("READY=1")


def test_logs_that_nobody_takes_end_nothing() -> None:
    program = (
        "import structlog\nfrom node.telemetry.logs import configure_logs\n"
        "configure_logs('info')\nstructlog.get_logger().info('said')\nprint('goes on')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=True
        )
    assert done.stdout == b"goes on\n"
