"""Help: every command shows an example, and every example is a command that emix takes."""

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from node.cli.main import cli


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, by their full names."""
    yield name, command
    if isinstance(command, click.Group):
        for child_name, child in command.commands.items():
            yield from commands(child, f"{name} {child_name}")


COMMANDS = dict(commands(cli, "emix"))


def examples(command: click.Command) -> list[list[str]]:
    """Return the arguments of the examples in a command's help."""
    lines = (command.help or "").partition("Example")[2].splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.strip().startswith("emix ")]
    ends = [[i for i, word in enumerate(words) if word in ("|", "||")] for words in found]
    return [w[1 : min(e, default=len(w))] for w, e in zip(found, ends, strict=True)]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "emix store"])
def test_examples_are_of_that_command_and_are_ones_that_emix_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for other, command in COMMANDS.items():
        monkeypatch.setattr(command, "callback", lambda other=other, **_: called.append(other))
    found = examples(COMMANDS[name])
    assert found
    for arguments in found:
        called.clear()
        done = CliRunner().invoke(cli, arguments)
        assert (done.exit_code, done.output) == (0, "")
        assert name in called
