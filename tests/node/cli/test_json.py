"""With --json, everything is JSON: every list, every action, and every error."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from node.cli.main import cli
from tests.node.cli.test_help import COMMANDS, ONLY_GROUPS

# A server has a log, which is JSON; help, scripts and manual pages are text.
WITHOUT = {
    name + word
    for name in ("emix", "emix-directory")
    for word in ("", " serve", " relay", " help", " completion", " man")
}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - ONLY_GROUPS - WITHOUT - {"emix backup"}))
def test_every_list_and_action_has_json(name: str) -> None:
    options = [o for p in COMMANDS[name].params if isinstance(p, click.Option) for o in p.opts]
    assert "--json" in options


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (["studies"], "usage", 2),  # there is no node
        (["no-such-command"], "usage", 2),
        (["studies", "--no-such-option"], "usage", 2),
        (["held", "release", "none"], "usage", 2),
        (["receipts", "verify", "/nowhere/proof"], "usage", 2),
        (["delete", "1.2"], "usage", 2),
    ],
)
def test_error_is_one_line_of_json(
    arguments: list[str], code: str, status: int, tmp_path: Path
) -> None:
    command = ["--home", str(tmp_path / "none"), *arguments, "--json"]
    done = CliRunner().invoke(cli, command)
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["exit_status"], done.exit_code) == (code, status, status)
    assert error["message"]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_error_without_json_is_a_line_for_people(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["--home", str(tmp_path / "none"), "studies"])
    assert done.stderr.splitlines()[0].startswith("cli: ")
    assert done.exit_code == 2


def test_what_is_no_utf_8_is_wrong_usage_and_no_trace(tmp_path: Path) -> None:
    (tmp_path / "keyring").touch()
    command = ["--home", str(tmp_path), "send", "1.2", "Billings", "--note", "caf\udce9"]
    done = CliRunner().invoke(cli, command)
    assert (done.exit_code, "caf\\udce9 is no UTF-8" in done.stderr) == (2, True), done.stderr
