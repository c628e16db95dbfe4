"""A node whose resolver answers nobody: it starts, answers, and tells peers its addresses."""

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.documents.identity import Identity
from tests.support.namespaces import needs_root
from tests.support.nodes import Node, free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow]
_ADDRESS = "10.213.99.2"
# A network on which everything is swallowed, the questions for names among it.
_CUT_OFF = f"""
ip link set lo up
ip link add d0 type veth peer name d1
ip address add {_ADDRESS}/24 dev d0
ip link set d0 up
ip link set d1 up
ip neighbour add 10.213.99.1 lladdr 02:00:00:00:00:01 dev d0
ip route replace default via 10.213.99.1
printf 'nameserver 10.213.99.1\\n' > "$0"
mount --bind "$0" /etc/resolv.conf
mount --bind /dev/null /etc/hosts
exec "$@"
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    needs_root("ip", "unshare", "mount")
    node = Node(tmp_path, "node", "Great Falls Clinic")
    shutil.copy("/etc/resolv.conf", tmp_path / "resolv.conf")
    node.prefix = ["unshare", "-n", "-m", "sh", "-ec", _CUT_OFF, str(tmp_path / "resolv.conf")]
    node.make(host="0.0.0.0")  # noqa: S104
    node.set(lan='"off"')
    text = (node.home / "emix.toml").read_text()
    metrics = f'listen = "127.0.0.1:{free_port()}"'
    (node.home / "emix.toml").write_text(text.replace('# listen = ""', metrics))
    yield node
    node.stop()


def test_dead_resolver_holds_nothing_up(node: Node, tmp_path: Path) -> None:
    started = time.monotonic()
    node.start()
    for _ in range(3):
        node.run("status")
    exported = tmp_path / "great-falls.emix"
    node.run("id", "--export", str(exported), "--no-qr")
    took = time.monotonic() - started
    profile = Identity.decode(exported.read_bytes()).profile
    hosts = {e.rpartition(":")[0] for e in (*profile.endpoints, *profile.introduction_endpoints)}
    assert hosts == {_ADDRESS}
    assert socket.gethostname() not in hosts
    assert took < 12, f"{took:.1f} s"
