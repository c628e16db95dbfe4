"""What a command reads for a node that may not: what the node would have found."""

from pathlib import Path
from queue import SimpleQueue

from node.cli.streaming import stream_files
from tests.cases.encoding import directory, without_item


def streamed(path: Path) -> dict[str, str]:
    """Return the names that are streamed, each with why it broke off."""
    found: dict[str, str] = {}
    label = ""
    for request in stream_files([path], SimpleQueue()):
        if request.HasField("file"):
            label = Path(request.file.label).name
            found[label] = ""
        elif request.HasField("broken"):
            found[label] = request.broken.reason
    return found


def test_dicomdir_that_is_named_is_streamed_with_what_it_names(tmp_path: Path) -> None:
    names = ("IM1", "IM2", "im3.dcm")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    path = tmp_path / "DICOMDIR"
    path.write_bytes(directory(["IM1", "IM3", "GONE"]))
    assert streamed(path) == {"DICOMDIR": "", "IM1": "", "im3.dcm": ""}
    assert set(streamed(tmp_path)) == {"DICOMDIR", *names}
    path.write_bytes(without_item(directory(names), 2))
    assert list(streamed(path)) == ["DICOMDIR"]
    assert "name the folder instead" in streamed(path)["DICOMDIR"]
