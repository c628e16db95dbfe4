"""A new user's day, by the commands of the README: every one of them, in their order.

The nodes run under users of their own, their homes are theirs alone; who works with them is an
ordinary user, with folders that nobody else may enter.
"""

import grp
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.attacks.users import reaching_this_code
from tests.support.dicom_files import make_instance
from tests.support.nodes import free_port, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="needs users"),
]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PASSPHRASE = "a long passphrase of three friends"
ADMIN, OPERATOR = 61101, 61102
GROUP = "users"  # there is one on every Debian
PROGRAMS = ("emix", "emix-directory")


def readme_commands() -> list[str]:
    """Return the commands of ours in the README, in its order, without what is said of them."""
    text = (ROOT / "README.md").read_text()
    found = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = " ".join(line.partition("#")[0].split())
            if command.split(" ")[0] in PROGRAMS:
                found.append(command)
    return found


class Person:
    """Somebody with a user and a folder of their own, who works with a home of another user's."""

    def __init__(self, folder: Path, uid: int, home: Path, words: Mapping[str, str]) -> None:
        self.folder = folder
        self._uid = uid
        self._home = home
        self._words = words
        folder.mkdir(mode=0o700)
        os.chown(folder, uid, uid)

    def gives(self, name: str, content: bytes) -> None:
        """Put a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        for each in (path.parent, path):
            os.chown(each, self._uid, self._uid)

    def command(self, command: str, *, as_uid: int | None = None) -> list[str]:
        """Return how a command of the README is run, with what it names put in place."""
        for word, meant in self._words.items():
            command = command.replace(word, meant)
        program, *arguments = shlex.split(command)
        uid = self._uid if as_uid is None else as_uid
        groups = f"--groups={grp.getgrnam(GROUP).gr_gid}"
        become = ("setpriv", f"--reuid={uid}", f"--regid={uid}", groups)
        return [*reaching_this_code(), *become, str(BIN / program), *arguments]

    def run(self, command: str, *options: str, as_uid: int | None = None) -> str:
        """Run a command of the README; return what it printed."""
        done = subprocess.run(
            [*self.command(command, as_uid=as_uid), *options],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder if as_uid is None else "/",
            env=self.environment(),
        )
        assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return the environment: no home directory but the folder."""
        variable = "EMIX_DIRECTORY_HOME" if self._uid == OPERATOR else "EMIX_HOME"
        return {"HOME": str(self.folder), variable: str(self._home), "LANG": "C.UTF-8"}


class Service:
    """A node or directory that serves under its own user."""

    def __init__(self, person: Person, command: str, uid: int, event: str) -> None:
        self._process = subprocess.Popen(
            person.command(command, as_uid=uid),
            stderr=subprocess.PIPE,
            cwd="/",
            env=person.environment(),
        )
        self._event = event.encode()
        ready = threading.Event()
        self.log: list[bytes] = []
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        assert ready.wait(60), self.log
        assert self._process.poll() is None, self.log

    def _read(self, ready: threading.Event) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if self._event in line:
                ready.set()
        ready.set()

    def stop(self) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0, self.log
        if self._process.stderr is not None:
            self._process.stderr.close()


@pytest.fixture
def ground() -> Iterator[Path]:
    """A folder that everybody may pass through."""
    made = Path("/tmp") / f"emix-day-{os.getpid()}"
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made)


def _hold_private(path: Path) -> None:
    for found in [path, *path.rglob("*")]:
        mode = found.stat().st_mode & 0o777
        is_way_in = found == path or found.name == "admin.sock"
        assert not mode & (0o007 if is_way_in else 0o077), f"{found} has {mode:o}"


class Facility(Person):
    """A facility: its node, under a user of its own, and who works with it."""

    def __init__(self, ground: Path, number: int, name: str, words: Mapping[str, str]) -> None:
        self.name = name
        self.node_uid = 61000 + number
        self.state = ground / f"var{number}"
        self.state.mkdir(mode=0o711)
        os.chown(self.state, self.node_uid, self.node_uid)
        folder = ground / f"person{number}"
        self.words = {"/media/usb/kit.json": str(folder / "kit.json"), **words}
        super().__init__(folder, ADMIN + 10 * number, self.state / "node", self.words)
        self.home = self.state / "node"

    def init(self, command: str) -> None:
        """Make the home, as the node's user; the kit goes to the person."""
        kit, passphrase = self.state / "kit.json", self.state / "passphrase"
        passphrase.write_text(PASSPHRASE)
        passphrase.chmod(0o600)
        os.chown(passphrase, self.node_uid, self.node_uid)
        options = [
            *("--passphrase-file", str(passphrase)),
            *("--peer-listen", f"127.0.0.1:{free_port()}"),
            *("--introduction-listen", f"127.0.0.1:{free_port()}"),
        ]
        made = command.replace("/media/usb/kit.json", str(kit))
        self.run(made, *options, as_uid=self.node_uid)
        self.gives("kit.json", kit.read_bytes())
        kit.unlink()
        config = self.home / "emix.toml"
        text = config.read_text().replace('# group = ""', f'group = "{GROUP}"')
        assert f'group = "{GROUP}"' in text
        config.write_text(text)

    def serve(self, command: str) -> Service:
        """Have the node serve."""
        asked = f"{command} --passphrase-file {self.state / 'passphrase'}"
        return Service(self, asked, self.node_uid, '"node serves"')

    def json(self, command: str) -> dict[str, object]:
        """Run a command with --json and return its value."""
        value: dict[str, object] = json.loads(self.run(command, "--json"))
        return value


def test_every_command_of_the_readme_works_in_its_order(ground: Path) -> None:
    left = readme_commands()

    def take(beginning: str) -> str:
        """Return the README's command that begins so; each is taken once."""
        found = next(command for command in left if command.startswith(beginning))
        left.remove(found)
        return found

    a_words = {"FACILITY-ID --at HOST:7411": "", "s12": "s1", "muller CT": "synthetic CT"}
    a = Facility(ground, 1, "Great Falls Clinic", a_words)
    a_words["/media/cdrom"] = str(a.folder / "cdrom")
    a.words.update(a_words)
    b = Facility(ground, 2, "Billings Hospital", {})
    b.words.update({"s7": "s1", "~/": f"{b.folder}/"})
    b.words["/mnt/backup/emix-2026-11-24"] = str(b.folder / "backup")
    for study in (1, 2):
        for number in range(3):
            disc = "cdrom" if study == 1 else "second"
            a.gives(f"{disc}/IM{number}", make_instance(study, number))

    init, serve = take("emix init"), take("emix serve")
    a.init(init)
    b.init(init.replace("Great Falls Clinic", "Billings Hospital"))
    running = [a.serve(serve), b.serve(serve)]
    try:
        _hold_private(a.home)
        export = take("emix id --export")
        a.run(export)
        b.run(export.replace("great-falls", "billings"))
        b.gives("great-falls.emix", (a.folder / "great-falls.emix").read_bytes())
        a.gives("billings.emix", (b.folder / "billings.emix").read_bytes())
        pairing = take("emix peers pair --file")
        a.run(pairing)
        b.run(pairing.replace("billings", "great-falls"))
        peers = take("emix peers")
        wait_until(lambda: "connected" in a.run(peers), "they are not connected", 60)

        a.run(take("emix import /media"))
        a.run(take("emix imports"))
        assert "Synthetic^Person" in a.run(take("emix studies"))
        assert "Nothing matches" in a.run(take("emix query"))
        assert "Synthetic^Person" in a.run("emix query PatientName=synthetic^p*")
        assert "delivered" in a.run(take("emix send s12"))
        assert "were sent there before" in a.run(take("emix send --all"), "--yes")
        second = take("emix send /media/cdrom").replace("/media/cdrom", str(a.folder / "second"))
        with _watching(a, take("emix transfers --watch")) as watched:
            a.run(second, "--wait")
            assert any("delivered" in line for line in watched)

        assert "Great Falls Clinic" in b.run(take("emix inbox"))
        b.run(take("emix export"))
        exported = {p.read_bytes() for p in (b.folder / "for-the-pacs").rglob("IM*")}
        assert exported == {p.read_bytes() for p in (a.folder / "cdrom").iterdir()}
        b.run(take("emix export"))
        with zipfile.ZipFile(b.folder / "for-the-portal.zip") as archive:
            assert {archive.read(name) for name in archive.namelist()} == exported
        asked = b.run(take("emix audit --study"))
        assert "study.exported" in asked
        assert f"uid {ADMIN + 20}" in asked
        b.run(take("emix backup /mnt"))
        b.run(take("emix backup verify"))
        b.run(take("emix --home ~/restored restore"))
        assert (b.folder / "restored" / "keyring").exists()

        receipts = a.json(take("emix receipts"))["receipts"]
        assert isinstance(receipts, list)
        assert len(receipts) == 2
        transfer = receipts[0]["transfer_id"]
        a.run(f"emix receipts export {transfer} {a.folder / 'proof.json'}")
        a.run(take("emix receipts verify"))
        _network(ground, take, a, b)
    finally:
        for service in running:
            service.stop()
    assert left == []


@contextmanager
def _watching(person: Person, command: str) -> Iterator[Iterable[str]]:
    """Have somebody look at what moves for the time of the block, and end that by Ctrl-C."""
    with subprocess.Popen(
        person.command(command), stdout=subprocess.PIPE, text=True, env=person.environment()
    ) as watching:
        assert watching.stdout is not None
        yield watching.stdout
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) in (0, 130)


def _network(ground: Path, take: object, a: Facility, b: Facility) -> None:
    """Make a network of the two, and put one out of it."""
    assert callable(take)
    state = ground / "directory-state"
    state.mkdir(mode=0o700)
    os.chown(state, OPERATOR, OPERATOR)
    operator = Person(ground / "operator", OPERATOR, state / "home", {})
    address = f"127.0.0.1:{free_port()}"
    relay = f"127.0.0.1:{free_port()}"
    words = {
        "/media/usb/montana.key": str(operator.folder / "montana.key"),
        "directory.example.org:7420": address,
        "--relay-listen 0.0.0.0:7421 --relay directory.example.org:7421": (
            f"--relay-listen {relay} --relay {relay} --listen {address}"
        ),
    }
    operator._words = words
    operator.run(take("emix-directory init"))
    serving = Service(operator, take("emix-directory serve"), OPERATOR, '"directory serves"')
    try:
        create = take("emix-directory token create")
        operator.run(create)
        operator.run(create.replace("Great Falls Clinic", "Billings Hospital") + "2")
        a.gives("letter", (operator.folder / "letter").read_bytes())
        b.gives("letter", (operator.folder / "letter2").read_bytes())
        join = take("emix join")
        a.run(join)
        b.run(join)
        operator.run(take("emix-directory list sign"))
        networks = take("emix networks")
        for facility in (a, b):
            wait_until(
                lambda facility=facility: "member" in facility.run(networks), "no member", 60
            )
        find = take("emix find")
        wait_until(lambda: "Great Falls Clinic" in b.run(find), "nobody is found", 60)
        identity = a.json("emix id")["facility_id"]
        pairing = take("emix peers pair FACILITY-ID").replace("FACILITY-ID", str(identity))
        b.run(pairing)
        assert "Great Falls Clinic" in operator.run(take("emix-directory facilities"))
        operator.run(take("emix-directory revoke"))
        wait_until(lambda: "revoked" in a.run(networks), "it is not revoked", 60)
    finally:
        serving.stop()
