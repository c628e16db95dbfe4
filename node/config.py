"""The node's configuration: a commented TOML file, checked as a whole when loaded.

Only `node.app` reads it; everything else gets the values that it needs.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from node.documents.identity import MAX_NAME_CHARACTERS
from node.errors import ConfigError


def _name(value: Any) -> str:
    is_text = isinstance(value, str) and value.isprintable()
    if not is_text or not 0 < len(value.strip()) <= MAX_NAME_CHARACTERS:
        raise ValueError(f"a text of 1 to {MAX_NAME_CHARACTERS} printable characters")
    return str(value).strip()


def _address(value: Any) -> str:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError('an address such as "0.0.0.0:7410"')
    return str(value)


def _addresses(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 8:
        raise ValueError('a list of at most 8 addresses such as ["node.example.org:7410"]')
    return tuple(_address(item) for item in value)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return check


def _choice(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError("one of " + ", ".join(f'"{word}"' for word in words))
        return str(value)

    return check


@dataclass(frozen=True)
class Config:
    """All settings, checked.

    Attributes (by section of the file):
        display_name: `[facility]` what other facilities see.
        peer_listen: `[listen]` address of the peer service.
        introduction_listen: `[listen]` address of the introduction service.
        announce: `[listen]` where peers are told to reach the peer service.
        announce_introduction: `[listen]` where they are told to reach the introduction service.
        incoming: `[policy]` whether a paired peer's packages arrive at once.
        offer_days: `[policy]` for how long our deliveries stand.
        quota_gib: `[store]` above this, incoming packages are asked to come later; 0 for none.
        reserve_mib: `[store]` kept free on the disk.
        retention_days: `[store]` received packages older than this are deleted; 0 for never.
        metrics_listen: `[metrics]` address of the Prometheus page; empty for none.
        log_level: `[log]` how much is logged.
    """

    display_name: str = field(metadata={"section": "facility", "check": _name})
    peer_listen: str = field(
        default="0.0.0.0:7410", metadata={"section": "listen", "key": "peer", "check": _address}
    )
    introduction_listen: str = field(
        default="0.0.0.0:7411",
        metadata={"section": "listen", "key": "introduction", "check": _address},
    )
    announce: tuple[str, ...] = field(
        default=(), metadata={"section": "listen", "check": _addresses}
    )
    announce_introduction: tuple[str, ...] = field(
        default=(), metadata={"section": "listen", "check": _addresses}
    )
    incoming: str = field(
        default="accept", metadata={"section": "policy", "check": _choice("accept", "ask")}
    )
    offer_days: int = field(default=30, metadata={"section": "policy", "check": _whole(1, 365)})
    quota_gib: int = field(default=0, metadata={"section": "store", "check": _whole(0, 10**6)})
    reserve_mib: int = field(default=64, metadata={"section": "store", "check": _whole(16, 10**6)})
    retention_days: int = field(default=0, metadata={"section": "store", "check": _whole(0, 36500)})
    metrics_listen: str = field(
        default="",
        metadata={
            "section": "metrics",
            "key": "listen",
            "check": lambda value: value and _address(value),
        },
    )
    log_level: str = field(
        default="info",
        metadata={
            "section": "log",
            "key": "level",
            "check": _choice("debug", "info", "warning", "error"),
        },
    )


def load_config(path: Path) -> Config:
    """Return the settings in a file.

    Raises:
        ConfigError: it cannot be read; or it has problems, all of which are listed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(f"{path} is not there; `emix init` makes it") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
    return check_text(text, str(path))


def check_text(text: str, name: str = "the configuration") -> Config:
    """Return the settings in a text; `ConfigError` lists all its problems."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{name} is no TOML: {exc}") from exc
    problems: list[str] = []
    values: dict[str, Any] = {}
    left = {
        (section, key)
        for section, table in tables.items()
        for key in (table if isinstance(table, dict) else [""])
    }
    for setting in fields(Config):
        section = setting.metadata["section"]
        key = setting.metadata.get("key", setting.name)
        table = tables.get(section, {})
        left.discard((section, key))
        if not isinstance(table, dict) or key not in table:
            if setting.name == "display_name":
                problems.append("[facility] display_name is missing")
            continue
        try:
            values[setting.name] = setting.metadata["check"](table[key])
        except ValueError as exc:
            problems.append(f"[{section}] {key} must be {exc}")
    problems += [f"[{section}] {key} is not a setting".strip() for section, key in sorted(left)]
    if problems:
        raise ConfigError("\n".join([f"{name} has problems:", *(f"  {p}" for p in problems)]))
    return Config(**values)


def default_text(display_name: str, peer_listen: str, introduction_listen: str) -> str:
    """Return a new configuration file, every setting in it with a word about it."""
    quoted = display_name.replace("\\", "\\\\").replace('"', '\\"')
    return _TEMPLATE.format(name=quoted, peer=peer_listen, introduction=introduction_listen)


_TEMPLATE = """\
# emix node. Restart the node after a change. Lines that begin with # show the defaults.

[facility]
# What other facilities see.
display_name = "{name}"

[listen]
# Where other nodes connect (mutual TLS; open this port to your partners).
peer = "{peer}"
# Where nodes introduce themselves before they are paired (TLS, no patient data).
introduction = "{introduction}"
# What partners are told to connect to, where it differs from the above: public names.
# announce = ["imaging.example.org:7410"]
# announce_introduction = ["imaging.example.org:7411"]

[policy]
# "accept": a paired peer's packages arrive at once. "ask": a person accepts each offer.
# incoming = "accept"
# For how many days a delivery of ours stands when the other side cannot be reached.
# offer_days = 30

[store]
# Above so many GiB of sealed data, incoming packages are asked to come later. 0: no quota.
# quota_gib = 0
# Kept free on the disk, in MiB, so that a full disk can still record what happened.
# reserve_mib = 64
# Received packages are deleted after so many days. 0: never.
# retention_days = 0

[metrics]
# Where Prometheus may ask, for example "127.0.0.1:7412". Empty: nowhere.
# listen = ""

[log]
# "debug", "info", "warning" or "error". Logs hold no patient data at any level.
# level = "info"
"""
