"""`emix config check`, version, completion and manual pages: without a node."""

import grp
import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from directory_service.cli import cli as directory_cli
from node.app.config import RELOADED, Config, check_text, default_text, taken_while_running
from node.cli.main import cli
from node.codec import jpeg_ls
from node.terminal.extras import manual

TEXT = default_text("Great Falls", "0.0.0.0:7410", "0.0.0.0:7411")


def run(*arguments: str, command: click.Command = cli) -> tuple[int, str]:
    done = CliRunner().invoke(command, arguments)
    return done.exit_code, done.output


def test_settings_are_checked_before_a_node_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "emix.toml"
    file.write_text(TEXT.replace("# quota_gib = 0", "quota_gib = 5"))
    status, said = run("--home", str(tmp_path), "config", "check")
    assert status == 0
    assert "[store] quota_gib" in said
    assert "reload" in said
    assert "has no problem" in said
    shown = json.loads(run("config", "check", str(file), "--json")[1])
    assert (shown["problems"], shown["settings"]["quota_gib"]) == ([], 5)


def test_all_problems_of_settings_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    file.write_text('[listen]\npeer = "nowhere"\ncolour = 1\n')
    status, said = run("config", "check", str(file))
    assert status == 3
    status, said = run("config", "check", str(file), "--json")
    problems = json.loads(said)["problems"]
    assert status == 3
    assert problems == [
        "[facility] display_name is missing",
        '[listen] peer must be an address such as "0.0.0.0:7410"',
        "[listen] colour is not a setting",
    ]
    file.write_text(
        TEXT.replace('# address = ""', 'address = "p:1"').replace(
            '# credentials = ""', f'credentials = "{tmp_path}/none"'
        )
    )
    assert (
        "cannot be read"
        in json.loads(run("config", "check", str(file), "--json")[1])["problems"][0]
    )


def test_compression_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "emix.toml"
    file.write_text(TEXT.replace('# compression = "normal"', 'compression = "small"'))
    assert run("config", "check", str(file))[0] == 0
    monkeypatch.setattr(jpeg_ls, "is_available", lambda: False)
    status, said = run("config", "check", str(file), "--json")
    assert status == 3
    assert json.loads(said)["problems"] == [
        '[store] compression must be "normal" until an extra is installed: '
        "pip install 'emix[small]'"
    ]


def test_group_of_admins_is_one_that_the_node_can_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, user = tmp_path / "emix.toml", os.geteuid()
    named = tuple(pwd.getpwuid(user))
    monkeypatch.setattr(
        pwd, "getpwuid", lambda _: pwd.struct_passwd(("emix", "x", 4711, *named[3:]))
    )
    monkeypatch.setattr(os, "getgrouplist", lambda *_: [4711])
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    for group, text in {
        "no-such-group": "this machine has no group 'no-such-group'; make it: groupadd",
        "daemon": "is not in the group 'daemon'; add it: usermod -aG daemon emix",
    }.items():
        file.write_text(TEXT.replace('# group = ""', f'group = "{group}"'))
        status, said = run("--home", str(tmp_path / "new"), "config", "check", str(file))
        assert (status, "[admin] group: " in said, text in said) == (3, True, True), said
        problems = run("config", "check", str(file), "--json")[1]
        assert text in json.loads(problems)["problems"][0]
    monkeypatch.setattr(os, "getgrouplist", lambda *_: [4711, grp.getgrnam("daemon").gr_gid])
    assert run("--home", str(tmp_path / "new"), "config", "check", str(file))[0] == 0


def test_file_that_is_not_there_is_not_missed_in_a_home(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    for folder in (tmp_path, tmp_path / "none"):
        status, said = run("config", "check", str(folder / "new.toml"))
        assert (status, said) == (3, f"cli: {folder}/new.toml is not there\n")


def test_node_takes_what_can_change_and_keeps_the_rest() -> None:
    before = check_text(TEXT)
    after = check_text(
        TEXT.replace("# quota_gib = 0", "quota_gib = 5").replace(
            '# trust = "paired"', 'trust = "network"'
        )
    )
    taken = taken_while_running(before, after)
    assert (taken.quota_gib, taken.trust) == (5, "paired")
    assert set(Config.__dataclass_fields__) >= RELOADED


@pytest.mark.parametrize(("command", "name"), [(cli, "emix"), (directory_cli, "emix-directory")])
def test_version_completion_and_manual(command: click.Group, name: str, tmp_path: Path) -> None:
    assert run("version", command=command)[1].startswith(f"{name} ")
    assert json.loads(run("version", "--json", command=command)[1])["name"] == name
    for shell in ("bash", "zsh", "fish"):
        status, script = run("completion", shell, command=command)
        variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
        assert (status, variable in script) == (0, True)
    status, said = run("man", str(tmp_path), command=command)
    assert (status, said) == (0, f"{len(list(tmp_path.iterdir()))} pages in {tmp_path}.\n")
    assert run("man", command=command)[1] == (tmp_path / f"{name}.1").read_text()


def test_completion_knows_the_commands() -> None:
    environment = {"_EMIX_COMPLETE": "bash_complete", "COMP_WORDS": "emix con", "COMP_CWORD": "1"}
    done = CliRunner().invoke(cli, [], prog_name="emix", env=environment)
    assert done.output == "plain,config\n"


@pytest.mark.parametrize(("command", "name"), [(cli, "emix"), (directory_cli, "emix-directory")])
def test_manual_pages_are_roff_that_man_takes(
    command: click.Group, name: str, tmp_path: Path
) -> None:
    groff = shutil.which("groff")
    for file, text in manual(command, name):
        assert text.startswith('.TH "')
        requests = {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))}
        assert requests <= {".TH", ".SH", ".B", ".TP", ".PP", ".nf", ".fi"}, file
        if groff is not None:
            done = subprocess.run(
                [groff, "-man", "-Tutf8", "-ww"],
                input=text.encode(),
                capture_output=True,
                check=True,
            )
            assert done.stderr == b"", file
