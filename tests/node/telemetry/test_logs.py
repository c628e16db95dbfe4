"""Logs: JSON lines only, and no text that may quote what was met."""

import json
import subprocess
import sys

_PROGRAM = """
import logging, structlog
from node.telemetry.logs import configure_logs
configure_logs("info")
try:
    raise ValueError("planted-secret")
except ValueError:
    logging.getLogger("a.library").exception("planted-secret %s", "planted-secret")
    structlog.get_logger().exception("it failed", error="ValueError")
logging.getLogger("a.library").warning("planted-secret")
structlog.get_logger().info("done", odd=["planted-secret"])
"""


def test_every_line_is_json_and_libraries_texts_are_left_out() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert "planted-secret" not in done.stderr + done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["library", "it failed", "done"]
    assert lines[0]["library"] == "a.library"
    assert "ValueError" in lines[1]["trace"]


_CYCLE = """
import structlog
from node.telemetry.logs import configure_logs
configure_logs("info")
try:
    error = ValueError("planted-secret")
    raise error from ExceptionGroup("planted-secret", [error])
except ValueError:
    structlog.get_logger().exception("it failed")
"""


def test_error_that_is_its_own_cause_is_logged_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CYCLE], capture_output=True, text=True, check=True, timeout=20
    )
    assert json.loads(done.stderr)["trace"].endswith("ValueError ExceptionGroup")
