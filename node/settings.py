"""Settings in a commented TOML file, checked as a whole when loaded: every problem is listed.

A frozen dataclass names the settings; the metadata of a field say in which `section` it stands,
under which `key` (its own name, if none is given), and what a value must pass: its `check`.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from node.domain.display_text import plain_text
from node.domain.names import MAX_NAME_CHARACTERS, looks_like_id
from node.domain.network import MAX_LISTED
from node.errors import ConfigError
from node.system import safe_paths

Settings = TypeVar("Settings")
_MOST_BYTES = 1 << 20


def name(value: Any) -> str:
    """Check a name for people."""
    is_text = isinstance(value, str) and value.isprintable()
    if not is_text or not 0 < len(value.strip()) <= MAX_NAME_CHARACTERS:
        raise ValueError(f"a text of 1 to {MAX_NAME_CHARACTERS} printable characters")
    return str(value).strip()


def facility_name(value: Any) -> str:
    """Check a facility's name: one that looks like a Facility ID would be taken for one."""
    if looks_like_id(checked := name(value)):
        raise ValueError("a name that does not look like a Facility ID")
    return checked


def optional_name(value: Any) -> str:
    """Check a name for people, or an empty text for none."""
    return value and name(value)


def names(value: Any) -> tuple[str, ...]:
    """Check a list of names."""
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise ValueError(f"a list of at most {MAX_LISTED} names")
    return tuple(name(item) for item in value)


def address(value: Any) -> str:
    """Check `host:port`."""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError('an address such as "0.0.0.0:7410"')
    return str(value)


def optional_address(value: Any) -> str:
    """Check `host:port`, or an empty text for none."""
    return value and address(value)


def optional_path(value: Any) -> str:
    """Check the absolute path of a file, or an empty text for none."""
    if not isinstance(value, str) or (value and not Path(value).is_absolute()):
        raise ValueError("an absolute path, or empty")
    return value


def plain_address(value: Any) -> str:
    """Check `host:port` with nothing else in it, or an empty text for none."""
    if value and isinstance(value, str) and set("@/ ") & set(value):
        raise ValueError('an address such as "proxy.example.org:3128", with no user and no scheme')
    return optional_address(value)


def addresses(value: Any) -> tuple[str, ...]:
    """Check a list of `host:port`."""
    if not isinstance(value, list) or len(value) > 8:
        raise ValueError('a list of at most 8 addresses such as ["node.example.org:7410"]')
    return tuple(address(item) for item in value)


def announced_addresses(value: Any) -> tuple[str, ...]:
    """Check a list of `host:port` that others are told: none is everybody's own machine."""
    found = addresses(value)
    if any(item.startswith("localhost:") for item in found):
        raise ValueError("addresses that other machines can reach, so not localhost")
    return found


def whole(low: int, high: int) -> Callable[[Any], int]:
    """Return the check of a whole number."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return check


def choice(*words: str) -> Callable[[Any], str]:
    """Return the check of one of some words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError("one of " + ", ".join(f'"{word}"' for word in words))
        return str(value)

    return check


def choices(*words: str) -> Callable[[Any], tuple[str, ...]]:
    """Return the check of a list of some words."""

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or any(item not in words for item in value):
            raise ValueError("a list with any of " + ", ".join(f'"{word}"' for word in words))
        return tuple(value)

    return check


def load_settings(kind: type[Settings], path: Path, made_by: str) -> Settings:
    """Return the settings in a file.

    Raises:
        ConfigError: it cannot be read; or it has problems, all of which are listed.
    """
    try:
        text = plain_text(safe_paths.read_file(path, _MOST_BYTES))
    except FileNotFoundError as exc:
        if path.parent.is_dir() and any(path.parent.iterdir()):
            raise ConfigError(
                f"{path} is missing, but the rest of the home exists: restore the file, for example"
                f" from a backup. `{made_by}` cannot recreate it: it makes another home, with other"
                " keys"
            ) from exc
        raise ConfigError(
            f"{path.parent} is not a home; make one with `{made_by}`, or name it with --home"
        ) from exc
    except OSError as exc:
        why = safe_paths.denial(path, os.R_OK) or exc.strerror
        raise ConfigError(f"{path} cannot be read: {why}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path} is not text in UTF-8: {exc}") from exc
    return check_settings(kind, text, str(path))


def check_settings(kind: type[Settings], text: str, called: str) -> Settings:
    """Return the settings in a text; `ConfigError` lists all its problems."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{called} is not valid TOML: {exc}") from exc
    problems: list[str] = []
    values: dict[str, Any] = {}
    left = {
        (section, key)
        for section, table in tables.items()
        for key in (table if isinstance(table, dict) else [""])
    }
    for setting in fields(kind):  # type: ignore[arg-type]  # a dataclass, as the module says
        section = setting.metadata["section"]
        key = setting.metadata.get("key", setting.name)
        table = tables.get(section, {})
        left.discard((section, key))
        if not isinstance(table, dict) or key not in table:
            if setting.default is MISSING:
                problems.append(f"[{section}] {key} is missing")
            continue
        try:
            values[setting.name] = setting.metadata["check"](table[key])
        except ValueError as exc:
            problems.append(f"[{section}] {key} must be {exc}")
    problems += [f"[{section}] {key} is not a setting".strip() for section, key in sorted(left)]
    if problems:
        raise ConfigError("\n".join([f"{called} has problems:", *(f"  {p}" for p in problems)]))
    return kind(**values)


def quoted(text: str) -> str:
    """Return a text as TOML writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
