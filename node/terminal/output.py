"""How commands show things: lines and tables for people, JSON for machines.

All output of commands goes through here and is escaped. Names, notes, UIDs and reasons come from
peers, directories and files, and could contain terminal control sequences. So `print_line` escapes
all control characters; only `Styled` adds colours of ours.
"""

import base64
import io
import json
import math
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from google.protobuf.message import Message

from node.domain.display_text import printable
from node.errors import NotMeant, UsageError

is_json_asked = ContextVar("is_json_asked", default=False)
"""Whether the command was called with --json: then errors are JSON too."""

_TEXT_ENCODINGS = ("utf-8", "utf8", "utf-16", "utf-32")


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as plain values, every field of it; numbers are numbers, bytes Base64."""
    return {
        field.name: _plain_value(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _plain_value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _plain(one) for key, one in sorted(value.items())}
    return [_plain(one) for one in value] if field.is_repeated else _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case Message():
            return as_dict(value)
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return None  # JSON has no such number
    return value


def show_json(value: Message | dict[str, Any] | list[Any]) -> None:
    """Print a message or value as JSON, every field of it."""
    if isinstance(value, Message):
        value = as_dict(value)
    click.echo(json_text(value, indent=2))


def show_done(value: Message | dict[str, Any], text: str, *, json_: bool) -> None:
    """Print the result of an action: as a line, or as JSON."""
    if json_:
        show_json(value)
    else:
        print_line(text)


def ask(question: str, *, is_sure: bool) -> None:
    """Ask a person to confirm an action that cannot be undone; return if confirmed.

    Raises:
        NotMeant: the person declined.
        UsageError: there is no terminal to ask at, and `--yes` was not given.
    """
    if is_sure:
        return
    nobody = UsageError("cannot ask here: add --yes if you are sure. Nothing was done")
    if is_json_asked.get():
        raise nobody
    try:
        is_meant = click.confirm(question, err=True)
    except click.Abort as exc:
        if sys.stdin.isatty():
            raise
        raise nobody from exc
    if not is_meant:
        raise NotMeant("nothing was done")


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def print_json_line(value: object, *, is_error: bool = False) -> None:
    """Print a value as one line of JSON."""
    click.echo(json_text(value), err=is_error)


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON with control characters escaped.

    If the output's encoding is not a Unicode one, all non-ASCII characters are escaped, too.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    is_ascii = not encoding.startswith(_TEXT_ENCODINGS)
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def take_any_text() -> None:
    """Have what standard output and error cannot encode be shown as an escape, not end us."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
        return click.style(printable(self.text), fg=self.colour, bold=self.is_bold or None)


def print_line(*parts: object, is_error: bool = False) -> None:
    """Print one line of these parts, with control characters made visible.

    A newline in a part is escaped, too: text from others cannot add lines.
    """
    if is_error and is_json_asked.get():
        print_json_line(
            {"note": "".join(p.text if isinstance(p, Styled) else str(p) for p in parts)},
            is_error=True,
        )
        return
    line = "".join(str(p) if isinstance(p, Styled) else clean(p) for p in parts)
    click.echo(line, err=is_error)


def print_own(text: str) -> None:
    """Print a text of ours as it is, lines and all: a script, a manual page."""
    click.echo(text, nl=False)


def print_error(text: str, *, code: str = "internal", status: int = 1, **facts: object) -> None:
    """Print what went wrong, after the command's name; each line of it is one.

    With --json, it is one line of JSON on standard error: `{"error": {...}}`.
    """
    if is_json_asked.get():
        error = {"code": code, "message": text, "exit_status": status, **facts}
        print_json_line({"error": error}, is_error=True)
        return
    context = click.get_current_context(silent=True)
    name = context.find_root().info_name if context else Path(sys.argv[0]).name
    first, *others = text.splitlines() or [""]
    print_line(f"{name}: {first}", is_error=True)
    for line in others:
        print_line(line, is_error=True)


def show_list_place(epoch: int, number: int) -> str:
    """Return how people name a network's list; empty for none."""
    return f"{number} (epoch {epoch})" if epoch > 1 else str(number or "")


@dataclass(frozen=True)
class Column:
    """A column of a table, and how it shrinks on a narrow terminal.

    Attributes:
        name: Its heading; a leading `>` aligns it to the right.
        least: The width to which it may be shortened; 0 for never.
        is_middle: Shorten in the middle, as for UIDs, whose ends distinguish them.
        spare: Columns with the highest number are left out first; 0 for never.
        is_note: If the width is limited, print it below its row, on lines of its own.
    """

    name: str
    least: int = 0
    is_middle: bool = False
    spare: int = 0
    is_note: bool = False

    @property
    def heading(self) -> str:
        """Return the name as shown."""
        return self.name.removeprefix(">")


def show_table(
    columns: Sequence[str | Column],
    rows: Iterable[Sequence[object]],
    empty: str,
    *,
    width: int | None = None,
) -> None:
    """Print a table; columns whose name begins with `>` are aligned to the right.

    Values are printed as they are asked for, with control characters made visible. On a terminal
    the table is as wide as that; elsewhere, nothing is shortened or left out. A column in which
    nothing stands is left out.

    Args:
        columns: Names, or columns that may give way.
        rows: One cell for each column.
        empty: What is printed instead of a table without rows.
        width: Another width, in characters.
    """
    lines = [[clean(cell) for cell in row] for row in rows]
    if not lines:
        print_line(empty)
        return
    every = [column if isinstance(column, Column) else Column(column) for column in columns]
    for line in _layout(every, lines, width if width is not None else output_width()):
        print_line(line)


def show_facts(facts: Iterable[tuple[str, object]], indent: int) -> None:
    """Print names and values, one pair a line, the names right-aligned; empty values are left out.

    On a terminal, long values are wrapped.
    """
    width = output_width()
    for name, value in facts:
        text = clean(value)
        if not text:
            continue
        room = max(width - indent - 2, 1)
        lines = list(wrapped(text, room)) if width and _width(text) > room else [text]
        for n, line in enumerate(lines):
            print_line(f"{name if not n else '':>{indent}}  {line}")


def output_width() -> int:
    """Return how many characters a line of standard output may have; 0 for no end.

    COLUMNS counts on a terminal only: every program that has loaded readline hands it down.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        return 0
    return shutil.get_terminal_size().columns


def _layout(
    every: Sequence[Column], lines: Sequence[Sequence[str]], limit: int
) -> Iterator[Styled | str]:
    """Yield the heading and the lines of a table."""
    kept = [i for i in range(len(every)) if any(line[i] for line in lines) or not every[i].heading]
    notes = [i for i in kept if every[i].is_note] if limit else []
    kept = [i for i in kept if i not in notes]
    natural = {i: max(_width(line[i]) for line in (_headings(every), *lines)) for i in kept}
    while limit and _least_total(every, kept, natural) > limit:
        spare = max(kept, key=lambda i: every[i].spare)
        if not every[spare].spare:
            break
        kept.remove(spare)
    widths = _fitted(every, kept, natural, limit)
    columns = [every[i] for i in kept]
    yield Styled(_line([c.heading for c in columns], columns, widths), is_bold=True)
    for line in lines:
        yield _line([line[i] for i in kept], columns, widths)
        for note in notes:
            if line[note]:
                text = f"{every[note].heading.lower()}: {line[note]}"
                yield from wrapped(text, limit, indent="    ")


def _headings(columns: Sequence[Column]) -> list[str]:
    return [column.heading for column in columns]


def _least(column: Column, natural: int) -> int:
    return min(natural, max(column.least, _width(column.heading))) if column.least else natural


def _least_total(every: Sequence[Column], kept: Sequence[int], natural: dict[int, int]) -> int:
    return sum(_least(every[i], natural[i]) for i in kept) + 2 * (len(kept) - 1)


def _fitted(
    every: Sequence[Column], kept: Sequence[int], natural: dict[int, int], limit: int
) -> list[int]:
    """Return the columns' widths: the widest of those that may give way does so first."""
    widths = [natural[i] for i in kept]
    least = [_least(every[i], natural[i]) for i in kept]
    while limit and sum(widths) + 2 * (len(widths) - 1) > limit:
        able = [n for n in range(len(widths)) if widths[n] > least[n]]
        if not able:
            break
        widths[max(able, key=lambda n: widths[n])] -= 1
    return widths


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    parts = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        text = shortened(cell, width, is_middle=column.is_middle)
        padding = " " * (width - _width(text))
        parts.append(padding + text if column.name.startswith(">") else text + padding)
    return "  ".join(parts).rstrip()


def shortened(text: str, width: int, *, is_middle: bool = False) -> str:
    """Return text of at most so many characters' width, with … for what is left out."""
    if _width(text) <= width:
        return text
    after = text[len(text) - (width - 1) // 2 :] if is_middle and width > 2 else ""
    before = text
    while _width(before) + 1 + _width(after) > width and before:
        before = before[:-1]
    return f"{before}…{after}"


def wrapped(text: str, width: int, *, indent: str = "") -> Iterator[str]:
    """Yield text in lines of at most so many characters, each indented; 0 for one line."""
    line, most = indent, width - _width(indent) if width else 0
    for word in (part for whole in text.split() for part in _parts(whole, most)):
        if width and line != indent and _width(line) + 1 + _width(word) > width:
            yield line
            line = indent
        line += word if line == indent else f" {word}"
    if line != indent:
        yield line


def _parts(word: str, most: int) -> Iterator[str]:
    """Yield a word in parts of at most so many characters; 0 for whole."""
    while most > 0 and _width(word) > most:
        part = word[:most]
        while _width(part) > most and len(part) > 1:
            part = part[:-1]
        yield part
        word = word[len(part) :]
    yield word


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def clean(value: object) -> str:
    """Return a value as text that a terminal cannot be fooled with."""
    return printable(str(value))


_TABLE_ROWS = 200

limited = click.option(
    "--limit",
    type=click.IntRange(0, 2**31),
    help=f"List only this many, the newest; 0: all. [default: {_TABLE_ROWS}, with --json all]",
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


def show_day(dicom_date: str) -> str:
    """Return a DICOM date as YYYY-MM-DD; other text is returned unchanged."""
    if len(dicom_date) == 8 and dicom_date.isascii() and dicom_date.isdigit():
        return f"{dicom_date[:4]}-{dicom_date[4:6]}-{dicom_date[6:]}"
    return dicom_date


def show_seconds(seconds: int) -> str:
    """Return a time span for people, in its largest unit and the next."""
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


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

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to show it on."""
        return self._bar is not None

    def say(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        if self._bar is None:
            print_line(line, is_error=True)
        else:
            self._bar.console.print(clean(line), markup=False, highlight=False)

    def update(self, done: int, total: int) -> None:
        """Show the progress."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total or None)
