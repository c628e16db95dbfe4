"""How commands end: one line for people, an exit status for scripts, no tracebacks."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import click

from node.domain.display_text import printable
from node.errors import Code, ConfigError, NodeError, UsageError
from node.system import safe_paths
from node.terminal.output import is_json_asked, print_error, print_line, take_any_text

EXIT_STATUS = (
    "Exit status: 0 done, 1 something failed or was left out, 2 wrong usage,"
    " 3 configuration, 4 not found, 5 conflict, 6 not allowed, 10 to 14 store, keys, files,"
    " protocol, documents,"
    " 20 peer not reachable, 21 peer not trusted."
)
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON.")


def home_of(text: str, variable: str) -> Path:
    """Return the home that an option, the environment or the default names.

    Raises:
        UsageError: the user has no home directory; or the path is not UTF-8, which SQLite needs.
        ConfigError: it is relative to a folder that may not be used.
    """
    try:
        path = Path(text).expanduser()
        str(safe_paths.absolute(path)).encode()
    except RuntimeError as exc:  # neither HOME nor an entry among the machine's users
        raise UsageError(
            f"this user has no home directory: name the node's home with --home DIR or {variable}"
        ) from exc
    except UnicodeEncodeError as exc:
        raise UsageError("the home's path is not in UTF-8; choose or rename it") from exc
    return path


class CommandGroup(click.Group):
    """Turns our errors into a line and an exit status.

    Attributes:
        interrupted: The message after Ctrl-C.
        modules: Commands that are loaded on demand: each with the module that has it in
            `COMMANDS`.
        summaries: What the list of commands says of each of them.
    """

    interrupted = "interrupted"
    modules: Mapping[str, str] = MappingProxyType({})
    summaries: Mapping[str, str] = MappingProxyType({})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in order."""
        return sorted({*super().list_commands(ctx), *self.modules})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; provides `help COMMAND`, too, which people often try first."""
        if cmd_name in self.modules and cmd_name not in self.commands:
            for command in import_module(self.modules[cmd_name]).COMMANDS:
                command.short_help = self.summaries[command.name]
                self.add_command(command)
        return super().get_command(ctx, cmd_name) or (_help if cmd_name == "help" else None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; those that are not loaded need not be for it."""
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(len(name) for name in names)
        rows = [
            (name, self.summaries.get(name) or self.commands[name].get_short_help_str(limit))
            for name in names
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Run the command line; what cannot be read or written is a line and a status, too."""
        if sys.stdin is None:  # closed by the caller: questions get no answer
            sys.stdin = open(os.devnull, encoding="ascii")  # noqa: SIM115, PTH123  # to the end
        take_any_text()
        arguments = list(sys.argv[1:] if args is None else args)
        is_json_asked.set("--json" in arguments)
        try:
            if is_json_asked.get():
                self._main_json(arguments, kwargs)
            return super().main(arguments, **kwargs)
        except OSError as exc:
            _leave_output(exc)

    def _main_json(self, arguments: list[str], options: dict[str, Any]) -> NoReturn:
        """Run the command line; wrong usage is told as JSON, too."""
        try:
            status = super().main(arguments, **{**options, "standalone_mode": False})
        except click.ClickException as exc:
            code = Code.USAGE.value
            print_error(exc.format_message(), code=code, status=exc.exit_code)
            raise SystemExit(exc.exit_code) from exc
        except click.Abort as exc:
            print_error("the question got no answer; nothing was done", code=Code.USAGE.value)
            raise SystemExit(1) from exc
        raise SystemExit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except NodeError as exc:
            exit_with(exc)
        except UnicodeEncodeError as exc:
            exit_with(_no_text(exc))
        except PermissionError as exc:
            try:
                exit_with(_not_ours(exc))
            except ConfigError as why:
                exit_with(why)
        except (KeyboardInterrupt, BaseExceptionGroup) as exc:
            self._end_of(exc)
            raise
        except BrokenPipeError:
            _leave_pipe()

    def _end_of(self, error: BaseException) -> None:
        """Exit quietly after Ctrl-C or a closed pipe; return for any other error."""
        kinds = {type(leaf) for leaf in _leaves(error)}
        if BrokenPipeError in kinds:
            _leave_pipe()
        if KeyboardInterrupt in kinds:
            print_error(self.interrupted)
            raise SystemExit(130)


def children(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Yield the commands of a group by their names, in order; they are loaded."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            yield name, command


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def _help(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, as its --help does."""
    root = context.find_root()
    command: click.Command = root.command
    path = root
    for word in words:
        found = command.get_command(path, word) if isinstance(command, click.Group) else None
        if found is None:
            raise click.UsageError(f"No such command {' '.join(words)!r}.", root)
        command = found
        path = click.Context(command, info_name=word, parent=path)
    for line in command.get_help(path).splitlines():
        print_line(line)


def _no_text(error: UnicodeEncodeError) -> UsageError:
    """Return what to say of an argument of the command line that is no text here."""
    said = error.object.encode("utf-8", "backslashreplace").decode()
    return UsageError(f"{said} is no UTF-8; set LANG to a UTF-8 locale, or write it otherwise")


def _not_ours(error: PermissionError) -> ConfigError:
    """Return what to say of a home, or a file, of another user's."""
    if not error.filename:
        safe_paths.check_working_folder(Path(os.curdir))  # which libraries ask for
        who = safe_paths.user_text(os.geteuid())
        return ConfigError(f"permission denied: this runs as {who}")
    path = Path(os.fsdecode(error.filename))
    why = safe_paths.denial(path) or safe_paths.denial(path.parent)
    return ConfigError(f"{path} cannot be used: {why or 'permission denied'}")


def exit_with(error: NodeError) -> NoReturn:
    """Print an error for people and end the command with its status."""
    # Several problems of a configuration are a line each; other errors are one line.
    text = str(error) if isinstance(error, ConfigError) else printable(str(error))
    print_error(text, code=error.code.value, status=error.exit_code, **error.facts)
    raise SystemExit(error.exit_code)


def _leave_pipe() -> NoReturn:
    _drop_output()
    raise SystemExit(0)


def _leave_output(error: OSError) -> NoReturn:
    reason = os.strerror(error.errno or 0)
    if error.filename is not None:
        exit_with(ConfigError(f"{error.filename} cannot be used ({reason})"))
    _drop_output()
    print_error(f"the output cannot be written ({reason}); the command itself was carried out")
    raise SystemExit(1)


def _drop_output() -> None:
    """Discard the rest of the output; else Python reports an error when it flushes at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
