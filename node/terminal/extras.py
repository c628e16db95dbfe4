"""Commands that every command line of ours has: version, completion, man."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from node.errors import UsageError
from node.terminal.commands import children
from node.terminal.output import print_line, print_own, show_json

_SHELLS = ("bash", "zsh", "fish")


def add_extras(cli: click.Group, name: str) -> None:
    """Add the commands to a command line.

    Args:
        cli: Its outermost group.
        name: What it is called.
    """
    for made in (_version(name), _completion(cli, name), _man(cli, name)):
        cli.add_command(made)


def _number() -> str:
    # Packages' metadata takes a while to load, and most commands do without.
    from node.version import VERSION

    return VERSION


def _version(name: str) -> click.Command:
    @click.command("version")
    @click.option("--json", "json_", is_flag=True, help="Print JSON.")
    def version(json_: bool) -> None:
        if json_:
            show_json({"name": name, "version": _number(), "python": platform.python_version()})
        else:
            print_line(f"{name} {_number()}, Python {platform.python_version()}")

    version.help = f"""Show the version.

    \b
    Examples:
      {name} version
      {name} version --json
    """
    return version


def _completion(cli: click.Group, name: str) -> click.Command:
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"

    @click.command("completion")
    @click.argument("shell", type=click.Choice(_SHELLS))
    def completion(shell: str) -> None:
        from click.shell_completion import get_completion_class  # few commands need it

        kind = get_completion_class(shell)
        assert kind is not None  # noqa: S101  # click has these three
        print_own(kind(cli, {}, name, variable).source() + "\n")

    completion.help = f"""Print a script that completes commands and options in a shell.

    \b
    Examples:
      {name} completion bash > ~/.local/share/bash-completion/completions/{name}
      {name} completion zsh > ~/.zfunc/_{name}
      {name} completion fish > ~/.config/fish/completions/{name}.fish
    """
    return completion


def _man(cli: click.Group, name: str) -> click.Command:
    @click.command("man")
    @click.argument("directory", required=False)
    def man(directory: str | None) -> None:
        pages = dict(manual(cli, name))
        if directory is None:
            print_own(pages[f"{name}.1"])
            return
        folder = Path(directory)
        try:
            for file, text in pages.items():
                (folder / file).write_text(text)
        except OSError as exc:
            raise UsageError(f"{folder} cannot be written ({exc.strerror})") from exc
        print_line(f"{len(pages)} pages in {directory}.")

    man.help = f"""Print the manual page, or write the pages of all commands into a folder.

    \b
    Examples:
      {name} man | man -l -
      {name} man ~/.local/share/man/man1        # then: man {name}
    """
    return man


def manual(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """Yield the manual pages of a command and all below it: file names and texts."""
    context = click.Context(command, info_name=name)
    yield from _pages(command, context)


def _pages(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    path = context.command_path
    yield f"{path.replace(' ', '-')}.1", _page(command, context)
    if isinstance(command, click.Group):
        for name, child in children(command, context):
            yield from _pages(child, click.Context(child, info_name=name, parent=context))


def _page(command: click.Command, context: click.Context) -> str:
    path = context.command_path
    title = path.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f'.TH "{title.upper()}" "1" "" "emix {_number()}" "User Commands"']
    lines += [".SH NAME", f"{_plain(title)} \\- {_plain(command.get_short_help_str(200))}"]
    lines += [".SH SYNOPSIS", f".B {_plain(path)}", _line(usage)]
    lines += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    lines += _records("OPTIONS", _options(command, context))
    if isinstance(command, click.Group):
        lines += _records("COMMANDS", _children(command, context))
    if command.epilog:
        lines += [".SH EXIT STATUS", _line(command.epilog)]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield record


def _children(group: click.Group, context: click.Context) -> Iterator[tuple[str, str]]:
    for name, child in children(group, context):
        yield name, child.get_short_help_str(200)


def _records(heading: str, records: Any) -> Iterator[str]:
    found = list(records)
    if found:
        yield f".SH {heading}"
    for term, text in found:
        yield from (".TP", f".B {_plain(term)}", _line(text))


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a help text; paragraphs that click leaves as they are stay so."""
    for paragraph in text.replace("\r", "").split("\n\n"):
        lines = [line for line in paragraph.split("\n") if line.strip()]
        if lines and lines[0].strip() == "\b":
            yield from (".nf", *(_line(line) for line in lines[1:]), ".fi")
        else:
            yield from (_line(line.strip()) for line in lines)
        yield ".PP"


def _line(text: str) -> str:
    """Return a line of text that roff does not take for a request."""
    plain = _plain(text)
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def _plain(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
