"""How commands end: one line for people, a status for scripts, no traces."""

import os
import sys
from typing import Any, NoReturn

import click

from node.domain.texts import shown
from node.errors import ConfigError, NodeError
from node.terminal.output import print_error

EXIT_STATUS = (
    "Exit status: 0 done, 1 something failed or was not carried, 2 wrong usage,"
    " 3 configuration, 4 not found, 5 conflict, 10 to 14 store, keys, files, protocol, documents,"
    " 20 peer not reachable, 21 peer not trusted."
)
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class CommandGroup(click.Group):
    """Turns our errors into a line and an exit status."""

    interrupted = "interrupted"

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; what cannot be read or written is a line and a status, too."""
        if sys.stdin is None:  # closed by whoever called: nobody answers a question
            sys.stdin = open(os.devnull, encoding="ascii")  # noqa: SIM115, PTH123  # to the end
        try:
            return super().main(*args, **kwargs)
        except OSError as exc:
            _leave_output(exc)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except NodeError as exc:
            exit_with(exc)
        except PermissionError as exc:
            exit_with(_not_ours(exc))
        except (KeyboardInterrupt, BaseExceptionGroup) as exc:
            self._end_of(exc)
            raise
        except BrokenPipeError:
            _leave_pipe()

    def _end_of(self, error: BaseException) -> None:
        """End as a person expects who pressed Ctrl-C or closed the pipe; return for the rest."""
        kinds = {type(leaf) for leaf in _leaves(error)}
        if BrokenPipeError in kinds:
            _leave_pipe()
        if KeyboardInterrupt in kinds:
            print_error(self.interrupted)
            raise SystemExit(130)


def _not_ours(error: PermissionError) -> ConfigError:
    """Return what to say of a home, or a file, of another user's."""
    where = f"{error.filename} cannot be used" if error.filename else "a file cannot be used"
    return ConfigError(f"{where} (permission denied); run this as the user who owns it")


def exit_with(error: NodeError) -> NoReturn:
    """Print an error for people and end the command with its status."""
    # Several problems of a configuration are a line each; other errors are one line.
    print_error(str(error) if isinstance(error, ConfigError) else shown(str(error)))
    raise SystemExit(error.exit_code)


def _leave_pipe() -> NoReturn:
    _drop_output()
    raise SystemExit(0)


def _leave_output(error: OSError) -> NoReturn:
    reason = os.strerror(error.errno or 0)
    if error.filename is not None:
        exit_with(ConfigError(f"{error.filename} cannot be used ({reason})"))
    _drop_output()
    print_error(
        f"the output cannot be written ({reason}); what the command did before that is done"
    )
    raise SystemExit(1)


def _drop_output() -> None:
    """Have Python flush nowhere what nobody takes; it would complain once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
