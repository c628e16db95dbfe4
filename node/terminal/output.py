"""How commands show things: lines and tables for people, JSON for machines.

Everything that commands print goes through here, and nothing goes out as it came: names, notes,
UIDs and reasons come from peers, directories and files, and a terminal obeys what it is sent. So
`print_line` escapes all of it; only `Styled` has colours, which are ours.
"""

import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from node.domain.texts import shown


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as plain values, every field of it."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def show_json(value: Message | dict[str, Any] | list[Any]) -> None:
    """Print a message or value as JSON, every field of it."""
    if isinstance(value, Message):
        value = as_dict(value)
    click.echo(json_text(value, indent=2))


def print_json_line(value: object) -> None:
    """Print a value as one line of JSON."""
    click.echo(json_text(value))


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON in which what a terminal would obey is escaped, as JSON can."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


@dataclass(frozen=True)
class Styled:
    """Text of a line in a colour, or bold."""

    text: str
    colour: str | None = None
    is_bold: bool = False

    def __str__(self) -> str:
        return click.style(shown(self.text), fg=self.colour, bold=self.is_bold or None)


def print_line(*parts: object, is_error: bool = False) -> None:
    """Print one line of these parts, with what a terminal would obey made visible.

    A newline in a part is no newline: what comes from others cannot make lines of its own.
    """
    line = "".join(str(p) if isinstance(p, Styled) else clean(p) for p in parts)
    click.echo(line, err=is_error)


def print_error(text: str) -> None:
    """Print what went wrong, after the command's name; each line of it is one."""
    context = click.get_current_context(silent=True)
    name = context.find_root().info_name if context else Path(sys.argv[0]).name
    first, *others = text.splitlines() or [""]
    print_line(f"{name}: {first}", is_error=True)
    for line in others:
        print_line(line, is_error=True)


def show_list_place(epoch: int, number: int) -> str:
    """Return how people name a network's list; empty for none."""
    return f"{number} (epoch {epoch})" if epoch > 1 else str(number or "")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print a table; columns whose name begins with `>` are aligned to the right.

    Values are printed as they are asked for, with control characters made visible.
    """
    lines = [[clean(cell) for cell in row] for row in rows]
    if not lines:
        print_line(empty)
        return
    names = [column.lstrip(">") for column in columns]
    widths = [max(_width(line[i]) for line in [names, *lines]) for i in range(len(names))]
    print_line(Styled(_line(names, columns, widths), is_bold=True))
    for line in lines:
        print_line(_line(line, columns, widths))


def _line(cells: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        padding = " " * (width - _width(cell))
        parts.append(padding + cell if column.startswith(">") else cell + padding)
    return "  ".join(parts).rstrip()


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def clean(value: object) -> str:
    """Return a value as text that a terminal cannot be fooled with."""
    return shown(str(value))


_TABLE_ROWS = 200

limited = click.option(
    "--limit",
    type=click.IntRange(0, 2**31),
    help=f"At most so many, the newest; 0 for all. [default: {_TABLE_ROWS}, with --json all]",
)


def limit_of(limit: int | None, is_json: bool) -> int:
    """Return how many rows to ask for; 0 for all."""
    if limit is not None:
        return limit
    return 0 if is_json else _TABLE_ROWS


def note_limit(limit: int, rows: Sequence[object]) -> None:
    """Say that there may be more rows than were shown."""
    if limit and len(rows) == limit:
        print_line(f"The newest {limit}; --limit 0 shows all.", is_error=True)


def show_bytes(count: int) -> str:
    """Return a size for people, in decimal units as disks and lines have them."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def show_rate(bytes_a_second: int) -> str:
    """Return a rate for people; empty for none."""
    return f"{show_bytes(bytes_a_second)}/s" if bytes_a_second else ""


def show_time(seconds: int) -> str:
    """Return a moment in local time; empty for none."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""


def show_ago(seconds: int) -> str:
    """Return how long ago something was; `never` for zero."""
    if not seconds:
        return "never"
    ago = max(0, int(time.time()) - seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if ago >= size:
            return f"{ago // size} {unit} ago"
    return f"{ago} s ago"


class ProgressBar:
    """A bar with rate and time left on a terminal; nothing elsewhere."""

    def __init__(self, label: str) -> None:
        self._bar: Any = None
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            transient=True,
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(label, total=None)

    def __enter__(self) -> "ProgressBar":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show how far it is."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total or None)
