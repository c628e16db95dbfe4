"""Help: every command shows an example, and every example is a command that is taken."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import node.cli
from directory_service.cli import cli as directory_cli
from node.cli.main import cli
from node.terminal.commands import children


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, by their full names."""
    yield name, command
    if isinstance(command, click.Group):
        for child_name, child in children(command, click.Context(command)):
            yield from commands(child, f"{name} {child_name}")


COMMANDS = dict(commands(cli, "emix")) | dict(commands(directory_cli, "emix-directory"))
ONLY_GROUPS = {
    "emix clock",
    "emix config",
    "emix node",
    "emix store",
    "emix-directory token",
    "emix-directory list",
    "emix-directory key",
}


def examples(command: click.Command) -> list[list[str]]:
    """Return the arguments of the examples in a command's help."""
    text = (command.help or "").partition("Example")[2].replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip().startswith("emix")]
    found = [shlex.split(line, comments=True) for line in lines]
    ends = [[i for i, word in enumerate(words) if word in ("|", "||", ">")] for words in found]
    return [w[1 : min(e, default=len(w))] for w, e in zip(found, ends, strict=True)]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ONLY_GROUPS])
def test_examples_are_of_that_command_and_are_ones_that_are_taken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for other, command in COMMANDS.items():
        monkeypatch.setattr(command, "callback", lambda other=other, **_: called.append(other))
    found = examples(COMMANDS[name])
    assert found
    for arguments in found:
        called.clear()
        done = CliRunner().invoke(directory_cli if name.startswith("emix-d") else cli, arguments)
        assert (done.exit_code, done.output) == (0, "")
        assert name in called


def test_every_module_has_the_commands_that_it_is_said_to_have() -> None:
    said: dict[str, set[str]] = {}
    for name, module in cli.modules.items():
        said.setdefault(module, set()).add(name)
    for path in Path(node.cli.__file__).parent.glob("*_commands.py"):
        found = import_module(f"node.cli.{path.stem}")
        assert said.pop(found.__name__) == {command.name for command in found.COMMANDS}
    assert said == {}


def test_list_of_commands_tells_each_in_a_line_of_80_columns() -> None:
    listed = CliRunner().invoke(cli, ["--help"]).output.partition("Commands:\n")[2]
    told = {name: line for line in listed.splitlines() if (name := line[2:].split(" ")[0])}
    for name, summary in cli.summaries.items():
        assert told[name].endswith(f"  {summary}")
        assert len(told[name]) <= 80
        assert COMMANDS[f"emix {name}"].get_short_help_str() == summary


@pytest.mark.parametrize("arguments", ["--help", "version", "init --help", "nothing"])
def test_what_asks_no_node_loads_no_grpc(arguments: str) -> None:
    program = (
        "import sys\nfrom node.cli.main import cli\n"
        "try:\n    cli.main(sys.argv[1:], prog_name='emix')\nfinally:\n"
        "    assert 'grpc' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments.split()], check=False)
    assert done.returncode == (2 if arguments == "nothing" else 0)
