"""The `emix` command itself: which home it works on, its help, and how it ends after Ctrl-C."""

from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from node.cli import main
from node.cli.main import cli


def emix(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="emix", env=environment)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `emix status` be ended by Ctrl-C while it runs."""

    def pressed(**_: object) -> None:
        raise KeyboardInterrupt

    module = import_module("node.cli.node_commands")
    monkeypatch.setattr(module.status, "callback", pressed)


def test_home_of_the_environment_is_used(tmp_path: Path) -> None:
    done = emix("status", EMIX_HOME=str(tmp_path / "one"))
    assert done.exit_code == 2
    assert f"{tmp_path}/one is not a node's home; make one with `emix init`" in done.stderr


def test_home_of_the_option_comes_before_that_of_the_environment(tmp_path: Path) -> None:
    done = emix("--home", str(tmp_path / "two"), "status", EMIX_HOME=str(tmp_path / "one"))
    assert f"{tmp_path}/two is not a node's home" in done.stderr


def test_home_is_in_the_users_own_folder_if_nobody_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMIX_HOME", raising=False)
    done = emix("status", HOME=str(tmp_path))
    assert f"{tmp_path}/.emix is not a node's home" in done.stderr


def test_help_lists_every_command_within_80_columns() -> None:
    done = emix("--help", COLUMNS="80")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 80
    listed = lines[lines.index("Commands:") + 1 :]
    names = {line.split()[0] for line in listed if line[:2] == "  " and line[2:3].strip()}
    assert {"init", "serve", "send", "inbox", "peers", "networks", "audit", "version"} <= names
    assert {"transfers", "studies", "imports", "held", "backup", "doctor"} <= names


def test_help_explains_the_home_and_the_exit_status() -> None:
    said = " ".join(emix("--help").output.split())
    assert "--home DIR" in said
    assert "[default: ~/.emix, or EMIX_HOME]" in said
    assert "Exit status: 0 done" in said


def test_version_is_shown_as_an_option_as_well() -> None:
    done = emix("--version")
    assert (done.exit_code, done.output.startswith("emix, version ")) == (0, True)


def test_command_that_does_not_exist_is_wrong_usage_and_points_to_the_help() -> None:
    done = emix("sned")
    assert done.exit_code == 2
    assert "No such command 'sned'" in done.stderr
    assert "emix --help" in done.stderr


@pytest.mark.usefixtures("interrupted")
def test_interrupted_command_says_that_the_node_goes_on() -> None:
    done = emix("status")
    assert done.exit_code == 130
    assert done.stderr == "emix: interrupted; the node continues the work that it was given\n"
    assert done.stdout == ""


@pytest.mark.usefixtures("interrupted")
def test_interrupted_command_says_so_in_json_if_asked() -> None:
    done = emix("status", "--json")
    assert done.exit_code == 130
    assert '"message": "interrupted; the node continues' in done.stderr


def test_only_the_module_of_the_command_that_is_run_is_loaded() -> None:
    group = type(cli)()
    context = click.Context(group)
    loaded = group.get_command(context, "accept")
    assert loaded is not None
    assert loaded.name == "accept"
    assert set(group.commands) == {"send", "transfers", "cancel", "inbox", "accept", "decline"}


def test_process_hides_its_memory_before_it_reads_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = list[str]()
    monkeypatch.setattr(main, "hide", lambda: order.append("hidden"))
    monkeypatch.setattr(cli, "main", lambda **options: order.append(options["prog_name"]))
    main.main()
    assert order == ["hidden", "emix"]
