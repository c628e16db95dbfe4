"""Packages with JPEG-LS between running nodes, of which one has not installed what opens them."""

from pathlib import Path

import pytest

from tests.support.dicom_files import make_noisy_instance, study_uid
from tests.support.nodes import CommandFailed, Node, pair

pytestmark = pytest.mark.integration
FILES = {f"{n}.dcm": make_noisy_instance(1, n, size=512) for n in range(1, 13)}


def without_the_extra(folder: Path) -> list[str]:
    """Return what runs Python as if the library were not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text('import sys\nsys.modules["imagecodecs"] = None\n')
    return ["env", f"PYTHONPATH={folder}"]


def test_small_packages_go_where_they_can_be_opened(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, content in FILES.items():
        (source / name).write_bytes(content)
    a, b, c = (Node(tmp_path, name, f"{name} clinic") for name in ("alder", "birch", "cedar"))
    c.prefix = without_the_extra(tmp_path / "without")
    nodes = (a, b, c)
    try:
        for node in nodes:
            node.make()
        a.set(compression='"small"')
        for node in nodes:
            node.start()
        small, normal = (
            int(node.json("import", str(source))["summary"]["sealed_bytes"]) for node in (a, b)
        )
        assert small < 0.98 * normal
        pair(a, b)
        a.run("send", study_uid(1), b.display_name, "--wait")
        b.run("export", study_uid(1), str(tmp_path / "out"), "--origin", a.display_name)
        found = [path.read_bytes() for path in (tmp_path / "out").rglob("IM*")]
        assert sorted(found) == sorted(FILES.values())
        for node in (a, b):
            node.run("store", "check", "--read-data")
        pair(a, c)
        said = a.run("send", study_uid(1), c.display_name, "--wait", statuses=(1,))
        assert "pip install 'emix[small]'" in " ".join(said.split())
        assert not c.json("studies")["studies"]
        a.stop()
        a.prefix = c.prefix
        with pytest.raises(CommandFailed, match=r"pip install 'emix\[small\]'"):
            a.start()
        a.prefix = []
        a.start()
    finally:
        for node in nodes:
            node.stop()
