"""A release: built twice, listed, signed; installed by digests, it upgrades an earlier home."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import venv
from pathlib import Path

import pytest

from tests.support.nodes import free_port
from tests.vectors import homes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).parents[2]
EARLIER = ROOT / "tests" / "vectors" / "1"


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A release of what is committed, and who may sign it."""
    if shutil.which("ssh-keygen") is None:
        assert not os.environ.get("CI"), "CI needs the system package openssh-client"
        pytest.skip("needs ssh-keygen (Debian package openssh-client)")
    folder = tmp_path_factory.mktemp("release")
    run("git", "clone", "-q", ROOT, folder / "clone")
    key = folder / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "releases", "-f", key)
    signers = folder / "signers"
    signers.write_text(f"releases {key.with_suffix('.pub').read_text()}")
    script = folder / "clone" / "deploy" / "release.sh"
    environment = {**os.environ, "PYTHON": str(ROOT / ".venv" / "bin" / "python")}
    run(script, folder / "out", key, env=environment)
    (folder / "clone" / "stray").write_text("x")
    done = subprocess.run(
        [script, folder / "twice", key], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "commit or undo" in done.stderr) == (1, True)
    return folder / "out", signers


def is_signed(folder: Path, signers: Path) -> bool:
    with (folder / "SHA256SUMS").open() as sums:
        verify = ("-Y", "verify", "-f", str(signers), "-I", "releases", "-n", "emix-release")
        done = subprocess.run(
            ["ssh-keygen", *verify, "-s", str(folder / "SHA256SUMS.sig")],
            stdin=sums,
            capture_output=True,
            check=False,
        )
    whole = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    return (done.returncode, whole.returncode) == (0, 0)


def test_signature_covers_every_file_and_breaks_with_each(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    out, signers = made
    assert is_signed(out, signers)
    listed = {line.split()[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    assert listed == {p.name for p in out.iterdir()} - {"SHA256SUMS", "SHA256SUMS.sig"}
    for name in sorted(listed | {"SHA256SUMS"}):
        copy = tmp_path / name
        shutil.copytree(out, copy)
        with (copy / name).open("ab") as file:
            file.write(b" ")
        assert not is_signed(copy, signers), name


def test_bill_of_materials_lists_what_is_installed_with_its_digests(
    made: tuple[Path, Path],
) -> None:
    out, _ = made
    bill = json.loads((out / "emix.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "emix")
    needed = re.findall(r"^([\w.-]+)==(\S+)", (out / "requirements.txt").read_text(), re.MULTILINE)
    found = {(c["name"].lower(), c["version"]) for c in bill["components"]}
    assert found == {(name.lower(), version) for name, version in needed}
    hashes = [r.get("hashes") for c in bill["components"] for r in c["externalReferences"]]
    assert sum(map(bool, hashes)) >= len(needed)


def test_release_installs_by_digests_and_upgrades_a_home_of_before(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    out, _ = made
    venv.create(tmp_path / "venv", with_pip=True)
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    index = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "http"))}
    pip = (tmp_path / "venv" / "bin" / "pip", "install", "--quiet", "--no-deps")
    run(*pip, "--require-hashes", "-r", out / "requirements.txt", env={**bare, **index})
    [wheel] = out.glob("emix-*.whl")
    run(*pip, "--no-index", wheel, env=bare)
    emix = tmp_path / "venv" / "bin" / "emix"
    run(tmp_path / "venv" / "bin" / "pip", "check", env=bare)

    with tarfile.open(fileobj=io.BytesIO((EARLIER / "home").read_bytes())) as archive:
        archive.extractall(tmp_path, filter="data")
    home, secret = tmp_path / "home", tmp_path / "passphrase"
    home.chmod(0o700)
    secret.write_bytes(homes._PASSPHRASE)
    secret.chmod(0o600)
    config = (home / "emix.toml").read_text()
    config = re.sub(r'"127\.0\.0\.1:\d+"', lambda _: f'"127.0.0.1:{free_port()}"', config)
    (home / "emix.toml").write_text(config)
    node: tuple[str | Path, ...] = (emix, "--home", home)
    with (tmp_path / "log").open("w") as log:
        serve = [*node, "serve", "--passphrase-file", secret]
        serving = subprocess.Popen(serve, env=bare, cwd="/", stderr=log)
    try:
        _wait_for(node, bare, serving)
        assert (home / "metadata.db.earlier").exists()
        assert "0 problems" in run(*node, "store", "check", "--read-data", env=bare)
        assert json.loads(run(*node, "audit", "verify", "--json", env=bare))["problem"] == ""
        says = json.loads((EARLIER / "says.json").read_text())["home"]
        studies = json.loads(run(*node, "studies", "--json", env=bare))["studies"]
        assert {s["study_instance_uid"] for s in studies} == set(says["studies"])
        for uid, files in says["studies"].items():
            run(*node, "export", uid, tmp_path / uid, env=bare)
            exported = [p for p in (tmp_path / uid).rglob("*") if p.is_file()]
            assert len(exported) == len(files)
    finally:
        serving.terminate()
        assert serving.wait(60) == 0, (tmp_path / "log").read_text()


def _wait_for(
    node: tuple[str | Path, ...], environment: dict[str, str], serving: "subprocess.Popen[bytes]"
) -> None:
    """Wait until a node answers; each time it is asked takes a while."""
    for _ in range(240):
        assert serving.poll() is None
        done = subprocess.run([*node, "status"], env=environment, capture_output=True, check=False)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)
