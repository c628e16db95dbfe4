"""Rules that hold the whole house together."""

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2
from emix.exchange.v1 import exchange_pb2
from emix.introduction.v1 import introduction_pb2

from node import errors
from node.app import config

ROOT = Path(__file__).resolve().parents[2]


def test_stubs_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.architecture.stubs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_everything_in_the_protocols_is_commented() -> None:
    declaration = re.compile(
        r"^\s*(service|rpc|message|enum|oneof|[\w.]+(?: [\w.]+)? \w+ =|\w+ = \d)"
    )
    for path in (ROOT / "proto").rglob("*.proto"):
        lines = path.read_text().splitlines()
        for n, line in enumerate(lines):
            is_code = declaration.match(line) and not line.startswith(
                ("syntax", "package", "import")
            )
            if is_code:
                before = lines[n - 1].strip()
                assert before.startswith("//"), f"{path.name}:{n + 1}: {line.strip()}"


def test_every_service_denies_by_default() -> None:
    """A service cannot be made without a guard, nor with a method missing."""
    from node.rpc.serving import Service

    fields = {f.name: f for f in dataclasses.fields(Service)}
    assert fields["guard"].default is dataclasses.MISSING
    for pb in (admin_pb2, exchange_pb2, introduction_pb2):
        for descriptor in pb.DESCRIPTOR.services_by_name.values():
            try:
                Service(descriptor, {}, None)  # type: ignore[arg-type]
            except TypeError:
                continue
            raise AssertionError(f"{descriptor.full_name} was made without handlers")


def test_every_error_has_a_code_that_leads_back_to_it() -> None:
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.NodeError)
    ]
    for cls in classes:
        assert cls.__doc__
        assert issubclass(cls, errors.by_code(cls.code))
    assert {cls.code for cls in classes} <= set(errors.Code)


def test_new_configuration_loads_and_mentions_every_setting(tmp_path: Path) -> None:
    path = tmp_path / "emix.toml"
    text = config.default_text('A "quoted" name', "127.0.0.1:1", "127.0.0.1:2")
    path.write_text(text)
    loaded = config.load_config(path)
    assert loaded.display_name == 'A "quoted" name'
    for setting in dataclasses.fields(config.Config):
        assert re.search(rf"\b{setting.metadata.get('key', setting.name)} =", text), setting.name


def test_configuration_with_problems_lists_them_all(tmp_path: Path) -> None:
    path = tmp_path / "emix.toml"
    path.write_text('[listen]\npeer = "nowhere"\ncolour = 1\n[policy]\nincoming = "maybe"\n')
    with pytest.raises(errors.ConfigError) as caught:
        config.load_config(path)
    for word in ("display_name is missing", "peer must be", "colour is not", "incoming must be"):
        assert word in str(caught.value)


_STARTERS = re.compile(
    r"\b(subprocess\.|multiprocessing|open_process|run_process|create_subprocess|pty\.|"
    r"os\.(fork|exec|spawn|posix_spawn|system|popen)|sys\.executable|ctypes\.\w+\(None\)\.fork)"
)


def test_processes_are_started_in_one_place() -> None:
    """There they are isolated from the current folder and the environment."""
    sources = [
        path for package in ("node", "directory_service") for path in (ROOT / package).rglob("*.py")
    ]
    starting = {str(p.relative_to(ROOT)) for p in sources if _STARTERS.search(p.read_text())}
    assert starting == {"node/sandbox/children.py"}


def test_no_shield_is_without_a_deadline() -> None:
    """Whoever is cancelled waits for a while at most, whatever a disk or another process does."""
    found = []
    for package in ("node", "directory_service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "trio.CancelScope":
                    names = {keyword.arg for keyword in call.keywords}
                    if "shield" in names and not names & {"deadline", "relative_deadline"}:
                        found.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not found


def test_documents_name_tests_that_are_there() -> None:
    """What the threat model says is shown by a test: a renamed test must not leave it behind."""
    tests = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    for document in ("threat-model.md", "attacks.md", "testing.md"):
        text = (ROOT / "docs" / document).read_text()
        for name in set(re.findall(r"(?:\w+/)*test_\w+\.py", text)):
            assert any(f"/{test}".endswith(f"/{name}") for test in tests), f"{document}: {name}"


def test_every_row_of_the_threat_model_names_a_test() -> None:
    text = (ROOT / "docs/threat-model.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 2]
    rows = [row for row in rows if not row.endswith(("| shown by |",))]
    assert rows
    assert [row for row in rows if not re.search(r"test_\w+\.py \|$", row)] == []


@pytest.mark.parametrize("made", ["node/extra", "node/exchange/extra", "directory_service/extra"])
def test_package_that_no_rule_names_breaks_the_import_rules(made: str, tmp_path: Path) -> None:
    for name in ("node", "directory_service", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    (tmp_path / made).mkdir()
    (tmp_path / made / "__init__.py").write_text("")
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert linter is not None
    done = subprocess.run(
        [linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert made.replace("/", ".") in done.stdout


def test_parts_are_joined_by_their_constructors() -> None:
    """Nothing is set on a part that is made already, and nothing is looked up late."""
    found = []
    for path in sorted((ROOT / "node/app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AugAssign | ast.AnnAssign):
                targets = [node.target]
            is_set = any(
                isinstance(target, ast.Attribute) and not isinstance(target.value, ast.Name)
                for target in targets
            )
            is_late = isinstance(node, ast.Lambda) and any(
                isinstance(name, ast.Name) and name.id == "self" for name in ast.walk(node.body)
            )
            if isinstance(node, ast.stmt | ast.expr) and (is_set or is_late):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


_NEVER_NAMED = re.compile(
    r"_?(hold_(?!reasons)\w+|took_\w+|let_in|shun\w*|was_fooled|blacklist|whitelist|master|slave"
    r"|(\w+_)?(news|told|untold|knowledge|remembered)(_\w+)?|tell_\w+)",
    re.IGNORECASE,
)
_NEVER_SAID = re.compile(r"(HIPAA|GDPR)[ -]compliant|blacklist|whitelist", re.IGNORECASE)


def test_words_that_the_glossary_forbids_are_nowhere() -> None:
    found = []
    for package in ("node", "directory_service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [getattr(node, field, None) for field in ("id", "attr", "name", "arg")]
                found += [
                    f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name}"
                    for name in names
                    if isinstance(name, str) and _NEVER_NAMED.fullmatch(name)
                ]
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        if path.name != "glossary.md":
            found += [f"{path.name}: {m[0]}" for m in _NEVER_SAID.finditer(path.read_text())]
    assert not found


# Ports and what only names types: there is nothing in them that a test could run.
WITHOUT_TESTS = {"exchange/ports.py", "exchange/transfer/ports.py", "exchange/transfer/links.py"}


def test_modules_have_their_tests_beside_them() -> None:
    """A test file for each module of these rooms, at the module's place below `tests`."""
    node = ROOT / "node"
    rooms = ("exchange", "store", "admin", "cli")
    modules = [path.relative_to(node) for room in rooms for path in (node / room).rglob("*.py")]
    assert len(modules) > 100
    untested = {
        module.as_posix()
        for module in modules
        if module.name != "__init__.py"
        and not (ROOT / "tests/node" / module.parent / f"test_{module.name}").exists()
    }
    assert untested == WITHOUT_TESTS
