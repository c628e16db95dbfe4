"""Commands about the settings."""

import os
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import click

from node.app.config import RELOADED, Config, load_config
from node.cli.homes import home_path
from node.errors import ConfigError
from node.proxy import read_proxy
from node.system import safe_paths
from node.terminal.commands import as_json
from node.terminal.output import print_line, show_json, show_table


@click.group("config")
def config() -> None:
    """Check the settings in emix.toml."""


@config.command("check")
@click.argument("file", required=False)
@as_json
@click.pass_context
def check(context: click.Context, file: str | None, json_: bool) -> None:
    """Check the settings before the node reads them; no node needs to run.

    Also checks the credentials of proxy and object store, and the group of admins. Shows settings
    that are not the default, and whether a running node applies them with a reload (SIGHUP,
    `systemctl reload emix`) or needs a restart. Lists all problems; exit status 3 if there is
    one.

    \b
    Examples:
      emix config check
      emix config check emix.toml.new --json
    """
    path = Path(file) if file is not None else home_path(context) / "emix.toml"
    try:
        found = load_config(path) if file is None else _load_named(path)
        _check_for(found, home_path(context), path)
    except ConfigError as exc:
        if not json_:
            raise
        first, *problems = str(exc).splitlines()
        listed = [problem.strip() for problem in problems] or [first]
        show_json({"file": str(path), "problems": listed, "settings": {}})
        raise SystemExit(exc.exit_code) from exc
    if json_:
        show_json({"file": str(path), "problems": [], "settings": asdict(found)})
        return
    show_table(
        ("SETTING", "VALUE", "TAKEN WITH"),
        [
            (
                f"[{f.metadata['section']}] {f.metadata.get('key', f.name)}",
                getattr(found, f.name),
                "reload" if f.name in RELOADED else "restart",
            )
            for f in fields(Config)
            if f.default is MISSING or getattr(found, f.name) != f.default
        ],
        "All settings are the default.",
    )
    print_line(f"{path} has no problem.")


def _load_named(path: Path) -> Config:
    """Return the settings in a file that need not lie in a home."""
    if not safe_paths.absolute(path).exists():
        raise ConfigError(f"{path} is not there")
    return load_config(path)


def _check_for(found: Config, home: Path, path: Path) -> None:
    """Check what a start would look at beyond the file.

    Raises:
        ConfigError: the node would not start with it; all problems are listed.
    """
    from node.app.buckets import check_chunk_credentials
    from node.app.home import check_group

    problems = []
    try:
        read_proxy(found.proxy, found.proxy_credentials)
    except ConfigError as exc:
        problems.append(str(exc))
    try:
        check_chunk_credentials(found)
    except ConfigError as exc:
        problems.append(str(exc))
    try:
        if found.admin_group:
            check_group(found.admin_group, home.stat().st_uid if home.exists() else os.geteuid())
    except ConfigError as exc:
        problems.append(str(exc))
    if problems:
        lines = [f"{path} has problems:", *(f"  {problem}" for problem in problems)]
        raise ConfigError("\n".join(lines))


COMMANDS = (config,)
