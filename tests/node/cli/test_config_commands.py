"""`emix config check`: which file, which settings are shown, and problems beyond the file."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from node.app.config import default_text
from node.errors import ConfigError
from tests.support.answering import run_emix, widest

TEXT = default_text("Great Falls", "0.0.0.0:7410", "0.0.0.0:7411")


class Settings:
    """A home with settings in which no node runs."""

    def __init__(self, home: Path) -> None:
        self.home, self.file = home, home / "emix.toml"
        home.mkdir()
        self.file.write_text(TEXT)

    def put(self, **values: str) -> None:
        """Set settings that are commented out in a new file."""
        text = TEXT
        for name, value in values.items():
            line = next(line for line in text.splitlines() if line.startswith(f"# {name} = "))
            text = text.replace(line, f"{name} = {value}", 1)
        self.file.write_text(text)

    def check(self, *arguments: str, width: int = 0) -> Result:
        return run_emix(self.home, "config", "check", *arguments, width=width)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home")


def test_settings_of_the_home_are_checked_without_a_node(settings: Settings) -> None:
    done = settings.check()
    assert (done.exit_code, done.stderr) == (0, "")
    heading, *rows, end = done.stdout.splitlines()
    assert heading.split() == ["SETTING", "VALUE", "TAKEN", "WITH"]
    assert [row.split()[1] for row in rows] == ["display_name"]
    assert end == f"{settings.file} has no problem."


def test_changed_setting_is_shown_with_when_it_is_applied(settings: Settings) -> None:
    settings.put(quota_gib="5", trust='"network"')
    rows = {row.split()[1]: row.split()[2:] for row in settings.check().stdout.splitlines()[1:-1]}
    assert rows["quota_gib"] == ["5", "reload"]
    assert rows["trust"] == ["network", "restart"]
    assert "reserve_mib" not in rows


def test_settings_in_json_are_all_of_them(settings: Settings) -> None:
    settings.put(quota_gib="5")
    shown = json.loads(settings.check("--json").stdout)
    assert (shown["file"], shown["problems"]) == (str(settings.file), [])
    assert (shown["settings"]["quota_gib"], shown["settings"]["trust"]) == (5, "paired")


def test_named_file_is_checked_in_place_of_the_homes(settings: Settings, tmp_path: Path) -> None:
    other = tmp_path / "emix.toml.new"
    other.write_text(TEXT)
    settings.file.write_text("nothing of this is TOML")
    done = settings.check(str(other))
    assert done.exit_code == 0
    assert done.stdout.endswith(f"{other} has no problem.\n")
    assert settings.check().exit_code == ConfigError.exit_code


def test_home_without_settings_says_what_to_do(settings: Settings) -> None:
    settings.file.unlink()
    for text in ("is not a home; make one with `emix init`", "restore the file"):
        done = settings.check()
        assert (done.exit_code, done.stdout) == (ConfigError.exit_code, "")
        assert text in done.stderr
        shown = settings.check("--json")
        assert shown.exit_code == ConfigError.exit_code
        (problem,) = json.loads(shown.stdout)["problems"]
        assert done.stderr == f"emix: {problem}\n"
        (settings.home / "keyring").touch()


def test_every_problem_beyond_the_file_is_listed(settings: Settings, tmp_path: Path) -> None:
    credentials = tmp_path / "s3"
    credentials.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    credentials.chmod(0o644)
    settings.put(
        address='"proxy.example:3128"',
        credentials=f'"{tmp_path}/none"',
        chunks='"s3://bucket/prefix?endpoint=https://s3.example.org"',
        chunks_credentials=f'"{credentials}"',
        group='"no-such-group"',
    )
    done = settings.check()
    assert (done.exit_code, done.stdout) == (ConfigError.exit_code, "")
    first, *problems = done.stderr.splitlines()
    assert first == f"emix: {settings.file} has problems:"
    proxy, chunks, group = problems
    assert f"{tmp_path}/none, the proxy's credentials, cannot be read" in proxy
    assert str(credentials) in chunks
    assert "this machine has no group 'no-such-group'; make it: groupadd" in group
    shown = settings.check("--json")
    assert shown.exit_code == ConfigError.exit_code
    assert json.loads(shown.stdout) == {
        "file": str(settings.file),
        "problems": [problem.strip() for problem in problems],
        "settings": {},
    }
    assert shown.stderr == ""


def test_credentials_that_only_this_user_reads_are_no_problem(
    settings: Settings, tmp_path: Path
) -> None:
    proxy, chunks = tmp_path / "proxy", tmp_path / "s3"
    proxy.write_text("user:password\n")
    chunks.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    for file in (proxy, chunks):
        file.chmod(0o600)
    settings.put(
        address='"proxy.example:3128"',
        credentials=f'"{proxy}"',
        chunks='"s3://bucket/prefix?endpoint=https://s3.example.org"',
        chunks_credentials=f'"{chunks}"',
    )
    done = settings.check()
    assert done.exit_code == 0, done.output
    assert "password" not in done.output


def test_wrong_settings_are_listed_before_credentials_are_looked_at(
    settings: Settings, tmp_path: Path
) -> None:
    settings.put(address='"p:1"', credentials=f'"{tmp_path}/none"', quota_gib='"much"')
    done = settings.check()
    assert done.exit_code == ConfigError.exit_code
    assert "[store] quota_gib" in done.stderr
    assert "cannot be read" not in done.stderr


def test_problems_of_a_file_are_lines_of_at_most_eighty_columns(settings: Settings) -> None:
    settings.put(quota_gib='"much"', retention_days="-1", level='"loud"')
    done = settings.check()
    assert done.exit_code == ConfigError.exit_code
    _, *problems = done.stderr.splitlines()
    assert [problem.split()[1] for problem in problems] == [
        "quota_gib",
        "retention_days",
        "level",
    ]
    assert widest("\n".join(problems)) <= 80
