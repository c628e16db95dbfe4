"""Settings files, whatever editor wrote them."""

from pathlib import Path

import pytest

from node.app.config import default_text, load_config
from node.errors import ConfigError
from node.proxy import Proxy, read_proxy
from node.terminal.passphrases import passphrase_in

TEXT = default_text("Zürich", "0.0.0.0:1", "0.0.0.0:2")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_mark_before_a_text_is_no_part_of_it(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    assert load_config(file).display_name == "Zürich"
    file.write_bytes("müde Katzen schlafen lange\r\n".encode(encoding))
    assert passphrase_in(str(file)) == "müde Katzen schlafen lange".encode()
    file.write_bytes("user:geheim\r\n".encode(encoding))
    file.chmod(0o600)
    assert read_proxy("proxy:1", str(file)) == Proxy("proxy:1", "user:geheim")


def test_passphrase_that_is_no_text_is_taken_as_it_is(tmp_path: Path) -> None:
    for data in (b"\xff\xff\xfex", b"gr\xfc\xdfe"):
        (tmp_path / "file").write_bytes(data + b"\n")
        assert passphrase_in(str(tmp_path / "file")) == data


def test_text_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(TEXT.encode("latin-1"))
    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        load_config(tmp_path / "file")
