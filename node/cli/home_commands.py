"""Commands that work directly on a home: init, serve, passphrase, restore."""

from functools import partial
from pathlib import Path

import click

from node.cli.homes import emix_command, home_path, kit_from, passphrase_of
from node.errors import UsageError
from node.system import safe_paths
from node.terminal.commands import as_json
from node.terminal.output import ProgressBar, print_line, show_bytes, show_done, show_json
from node.terminal.passphrases import passphrase_in, prompted


@click.command()
@click.option("--name", required=True, help="The facility's name, as others see it.")
@click.option(
    "--recovery-kit",
    required=True,
    metavar="FILE",
    help="Where to write the recovery kit: outside the home; keep it offline.",
)
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the passphrase.")
@click.option("--host-key", is_flag=True, help="Use a key file in the home, no passphrase.")
@click.option("--peer-listen", default="0.0.0.0:7410", show_default=True, metavar="HOST:PORT")
@click.option(
    "--introduction-listen", default="0.0.0.0:7411", show_default=True, metavar="HOST:PORT"
)
@click.option(
    "--chunks",
    default="",
    metavar="PLACE",
    help="Keep chunks in an object store: s3://BUCKET/PREFIX?endpoint=URL&region=NAME",
)
@click.option(
    "--chunks-credentials", metavar="FILE", help="Credentials; readable only by the node's user."
)
@as_json
@click.pass_context
def init(
    context: click.Context,
    name: str,
    recovery_kit: str,
    passphrase_file: str | None,
    host_key: bool,
    peer_listen: str,
    introduction_listen: str,
    chunks: str,
    chunks_credentials: str | None,
    json_: bool,
) -> None:
    """Make a new node: keys, encrypted store, configuration.

    With --chunks the sealed chunks are kept in an S3 object store, under a prefix that no other
    node uses; all else stays in the home. Give credentials in a file in the format of AWS's
    tools, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by a role of the machine.

    \b
    Examples:
      emix --home /srv/emix init --name "Great Falls Clinic" --recovery-kit /media/usb/kit.json
      emix init --name "Great Falls Clinic" --recovery-kit /media/usb/kit.json \\
        --chunks 's3://imaging/great-falls?endpoint=https://s3.example.org' \\
        --chunks-credentials /etc/emix/s3-credentials
    """
    from node.app.buckets import claim_place
    from node.app.home import Home, NewNode, make_home

    home = Home(home_path(context))
    passphrase = passphrase_in(passphrase_file)
    if host_key and passphrase is not None:
        raise UsageError("choose either --host-key or --passphrase-file")
    if not host_key and passphrase is None:
        say = UsageError("choose how to unlock the home: --passphrase-file FILE or --host-key")
        passphrase = prompted("Passphrase", say, is_new=True)
    signer = make_home(
        home,
        NewNode(
            display_name=name,
            recovery_kit=Path(recovery_kit),
            passphrase=passphrase,
            peer_listen=peer_listen,
            introduction_listen=introduction_listen,
            chunks=chunks,
            chunks_credentials=(
                str(safe_paths.absolute(Path(chunks_credentials))) if chunks_credentials else ""
            ),
        ),
        partial(claim_place, home),
    )
    if json_:
        facts = {"home": home.root.absolute(), "recovery_kit": Path(recovery_kit).absolute()}
        show_json(
            {
                "facility_id": str(signer.facility_id),
                **{name: str(path) for name, path in facts.items()},
            }
        )
        return
    print_line(f"Made a node in {home.root}.")
    print_line(f"Facility ID: {signer.facility_id}")
    print_line(f"Keep {recovery_kit} offline: it recovers the keys and speaks for the facility.")
    print_line(f"Next: look at {home.config}, then `{emix_command(home.root)} serve`.")


@click.command()
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the passphrase.")
@click.pass_context
def serve(context: click.Context, passphrase_file: str | None) -> None:
    """Run the node until it is stopped (Ctrl-C, SIGTERM).

    \b
    Examples:
      emix serve                                  # asks for the passphrase
      emix serve --passphrase-file /run/credentials/emix.service/passphrase
    """
    from node.app.home import Home
    from node.app.node import run_node

    home = Home(home_path(context))
    run_node(home, passphrase_of(home, passphrase_file))


@click.command()
@click.option("--passphrase-file", metavar="FILE", help="A file that holds the present passphrase.")
@click.option("--recovery-kit", metavar="FILE", help="Use the kit: the passphrase is lost.")
@click.option("--new-passphrase-file", metavar="FILE", help="A file that holds the new passphrase.")
@as_json
@click.pass_context
def passphrase(
    context: click.Context,
    passphrase_file: str | None,
    recovery_kit: str | None,
    new_passphrase_file: str | None,
    json_: bool,
) -> None:
    """Set a new passphrase; stop the node first.

    From then on only the new passphrase and the recovery kit open the home; a host key is
    deleted. Earlier copies of the home still open as before.

    \b
    Examples:
      emix passphrase
      emix passphrase --recovery-kit /media/usb/kit.json      # the old one is lost
    """
    from node.app.home import Home, set_passphrase, unlock_root_key

    home = Home(home_path(context))
    with home.locked():
        kit = kit_from(recovery_kit) if recovery_kit is not None else None
        old = passphrase_of(home, passphrase_file) if kit is None else None
        root_key = unlock_root_key(home, old, kit)
        new = passphrase_in(new_passphrase_file)
        if new is None:
            say = UsageError("the new passphrase is needed: --new-passphrase-file FILE")
            new = prompted("New passphrase", say, is_new=True)
        set_passphrase(home, root_key, new)
    text = f"The new passphrase is set. Start the node with `{emix_command(home.root)} serve`."
    show_done({"home": str(home.root.absolute())}, text, json_=json_)


@click.command()
@click.argument("directory")
@click.option(
    "--recovery-kit", metavar="FILE", help="Make a new host key, if no passphrase is set."
)
@click.option("--incomplete", is_flag=True, help="Restore what is left of a damaged backup.")
@as_json
@click.pass_context
def restore(
    context: click.Context,
    directory: str,
    recovery_kit: str | None,
    incomplete: bool,
    json_: bool,
) -> None:
    """Make the home from a backup (on a new machine, say). Stop the old node for good first.

    The home is a new folder, or an empty one (a disk may be mounted on it). An incomplete backup
    is refused before anything is written; --incomplete restores what is left, and exits with 1. A
    backup never contains the host key: for a node without a passphrase, use its recovery kit.

    \b
    Examples:
      emix --home /srv/emix restore /mnt/backup/emix-2026-11-24
      emix restore /mnt/backup/emix-2026-11-24 --recovery-kit /media/usb/kit.json
    """
    from node.app.home import Home
    from node.app.restoring import restore_home

    source, home = (
        safe_paths.absolute(Path(directory)),
        Home(safe_paths.absolute(home_path(context))),
    )
    kit = kit_from(recovery_kit) if recovery_kit is not None else None
    with ProgressBar("restoring") as bar:
        restored = restore_home(source, home, kit, takes_incomplete=incomplete, report=bar.update)
    if json_:
        missing = [{"file": problem.name, "problem": problem.what} for problem in restored.missing]
        show_json(
            {
                "home": str(home.root),
                "files": restored.files,
                "bytes": restored.bytes,
                "missing": missing,
            }
        )
    else:
        for problem in restored.missing:
            print_line(f"PROBLEM  {problem.name} {problem.what}")
        print_line(f"{restored.files} files, {show_bytes(restored.bytes)} in {home.root}.")
        start = emix_command(home.root)
        print_line(f"Next: `{start} serve`, then `{start} store check`.")
    if restored.missing:
        raise SystemExit(1)


COMMANDS = (init, serve, passphrase, restore)
