"""Peers, directories and files give names, notes, reasons and UIDs: a terminal only shows them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import time

import click
import pytest
from click.testing import CliRunner
from emix.admin.v1 import admin_pb2 as pb
from emix.directory.v1 import admin_pb2 as dpb
from emix.documents.v1 import documents_pb2 as doc

import node as node_package
from directory_service.cli import cli as directory_cli
from node.cli.main import cli
from node.crypto.digests import sha256
from node.documents.delivery import open_delivery, sign_delivery
from node.documents.identity import Identity
from node.documents.receipt import Proof, Receipt, sign_receipt
from node.terminal.commands import children
from tests.integration.attacks.texts import HOSTILE, hostile_node, is_harmless
from tests.support.hostile import HostilePeer, forge
from tests.support.nodes import Node

pytestmark = pytest.mark.integration

# Without a node: they print what their user gave, or what stands in files of this home.
LOCAL = {("init",), ("serve",), ("passphrase",), ("store", "repair"), ("restore",)}
# The documents are decoded before they are written; `test_proof...` is about their content.
LOCAL |= {("receipts", "verify"), ("backup", "verify"), ("config", "check")}
LOCAL |= {("version",), ("completion",), ("man",)}
# With keys, which the hostile node has none of.
LOCAL |= {("node", "replace"), ("node", "renew"), ("node", "request"), ("node", "certify")}
ARGUMENTS: dict[tuple[str, ...], list[tuple[str, ...]]] = {
    ("id",): [("--qr",), ("--export", "{file}")],
    ("store", "check"): [("--read-data",)],
    ("backup", "make"): [("{folder}/copy",)],
    ("peers", "pair"): [("A" * 56,), ("--at", "localhost:1")],
    ("peers", "confirm"): [(), ("ABCD-EFGH",)],
    ("peers", "remove"): [("somebody", "--yes")],
    ("join",): [("emix-join-letter",)],
    ("networks", "leave"): [("it",)],
    ("find",): [("word",)],
    ("import",): [("{folder}",)],
    ("held", "release"): [("1",)],
    ("imports", "resume"): [("1",)],
    ("imports", "discard"): [("1", "--yes")],
    ("held", "discard"): [("1",)],
    ("study",): [("1.2",)],
    ("export",): [("1.2", "{folder}/out")],
    ("delete",): [("1.2", "--yes"), ("words",)],
    ("send",): [("1.2", "somebody"), ("1.2", "somebody", "--wait"), ("words", "somebody")],
    ("transfers",): [(), ("--watch",)],
    ("audit", "accept"): [("somebody",)],
    ("audit", "head"): [(), ("--export", "{file}")],
    ("cancel",): [("ab",)],
    ("accept",): [("ab",)],
    ("decline",): [("ab",)],
    ("receipts", "export"): [("ab", "{file}")],
}


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in children(group, click.Context(group)):
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield (*path, name), command
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def invocations(folder: Path) -> Iterator[list[str]]:
    """Yield every command that talks to the node, with and without --json."""
    for path, command in commands(cli):
        if path in LOCAL:
            continue
        is_given = path in ARGUMENTS or not any(p.required for p in command.params)
        assert is_given, f"say with which arguments {path} is run"
        has_json = any("--json" in p.opts for p in command.params)
        for n, arguments in enumerate(ARGUMENTS.get(path, [()])):
            out = folder / f"{'-'.join(path)}{n}"
            out.mkdir()
            filled = [a.format(file=out / "file", folder=out) for a in arguments]
            yield [*path, *filled]
            if has_json:
                yield [*path, *filled, "--json"]


def test_no_command_prints_what_a_terminal_would_obey(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "keyring").touch()
    said: dict[str, str] = {}
    with hostile_node(home / "admin.sock", pb.DESCRIPTOR.services_by_name.values()):
        for arguments in invocations(tmp_path):
            done = CliRunner().invoke(
                cli, ["--home", str(home), *arguments], color=True, input="y\n" * 3
            )
            said[" ".join(arguments)] = done.output
            assert done.exception is None or isinstance(done.exception, SystemExit), arguments
            assert is_harmless(done.output), arguments
    assert len(said) > 40
    assert sum("FORGED LINE" in text for text in said.values()) > 25  # it was shown, not obeyed


def test_no_command_of_the_directory_does_either(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "directory.toml").touch()
    said: dict[str, str] = {}
    with hostile_node(home / "admin.sock", dpb.DESCRIPTOR.services_by_name.values()):
        for arguments in (["status"], ["facilities"], ["status", "--json"]):
            done = CliRunner().invoke(directory_cli, ["--home", str(home), *arguments], color=True)
            said[" ".join(arguments)] = done.output
    assert all("FORGED LINE" in text for text in said.values())
    assert {name: text for name, text in said.items() if not is_harmless(text)} == {}


def test_commands_print_through_one_module() -> None:
    """What is printed elsewhere would be printed as it came."""
    root = Path(node_package.__file__).parent.parent
    printing = re.compile(r"click\.(secho|echo)\(|(?<![\w.])print\(|sys\.stdout\.write")
    found = [
        str(path.relative_to(root))
        for folder in ("node", "directory_service")
        for path in sorted((root / folder).rglob("*.py"))
        if printing.search(path.read_text())
    ]
    # The parsers' answers go to the node, which decodes them.
    assert set(found) <= {
        "node/terminal/output.py",
        "node/dicom/worker.py",
        "node/crypto/argon2.py",
    }


def hostile_proof(folder: Path) -> bytes:
    """Return a proof that is rightly signed, and whose study has a UID that is none."""
    sender, receiver = HostilePeer(folder), HostilePeer(folder, "receiver")
    forgery = forge(sender, Identity.decode(receiver.statements()), 970)
    body = doc.Manifest.FromString(forgery.manifest.body)
    body.study_instance_uid = "1.2\x1b]52;c;aGk=\x07"
    manifest = sender.keys.signer.sign("manifest", body.SerializeToString())
    delivery = sign_delivery(
        replace(
            open_delivery(forgery.delivery),
            manifest_digest=manifest.digest(),
            manifest_bytes=len(manifest.encode()),
            sealed_key_digest=sha256(forgery.sealed_key),
        ),
        sender.keys.signer,
    )
    promised = open_delivery(delivery)
    receipt = Receipt(
        transfer_id=promised.transfer_id,
        delivery_digest=delivery.digest(),
        manifest_digest=manifest.digest(),
        package_id=promised.package_id,
        receiver=receiver.facility,
        instances=1,
        plaintext_bytes=body.instances[0].size_bytes,
        received_time=time(),
    )
    return Proof(manifest, delivery, sign_receipt(receipt, receiver.keys.signer)).encode()


def test_proof_whose_uid_is_none_is_refused_and_sends_nothing_to_the_terminal(
    tmp_path: Path,
) -> None:
    file = tmp_path / "proof.json"
    file.write_bytes(hostile_proof(tmp_path))
    node = Node(tmp_path, "nobody", "Nobody")
    for options in ((), ("--json",)):
        shown = node.run("receipts", "verify", str(file), *options, statuses=(0, 14))
        assert is_harmless(shown)
        assert "VALID" not in shown
    assert not is_harmless(HOSTILE)
