"""Commands about the settings."""

from dataclasses import MISSING, asdict, fields
from pathlib import Path

import click

from node.cli.client import home_path
from node.cli.node_commands import as_json
from node.config import RELOADED, Config, load_config
from node.errors import ConfigError
from node.proxy import read_proxy
from node.terminal.output import print_line, show_json, show_table


@click.group("config")
def config() -> None:
    """Look at the settings in emix.toml."""


@config.command("check")
@click.argument("file", required=False)
@as_json
@click.pass_context
def check(context: click.Context, file: str | None, json_: bool) -> None:
    """Check the settings before the node reads them; no node needs to run.

    Shows those that are not the default, and whether a running node takes them with a reload
    (SIGHUP, `systemctl reload emix`) or with a restart. Exit status 3 if something is wrong; all
    problems are listed.

    \b
    Examples:
      emix config check
      emix config check emix.toml.new --json
    """
    path = Path(file) if file is not None else home_path(context) / "emix.toml"
    try:
        found = load_config(path)
        read_proxy(found.proxy, found.proxy_credentials)
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


COMMANDS = (config,)
