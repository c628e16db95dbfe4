import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import grpc

from node.crypto.certificates import make_tls_identity
from node.crypto.signing import SigningKey, node_id
from node.rpc import credentials
from node.rpc.credentials import TrustSnapshot
from node.rpc.settling import Asking
from tests.support.clock import Clock
from tests.support.nodes import Node


def test_threads_that_sleep_or_have_ended_are_not_waited_for() -> None:
    asking, noted, end = Asking(), threading.Barrier(3), threading.Event()

    def ask(*, is_short: bool) -> None:
        asking.note()
        noted.wait()
        if not is_short:
            end.wait()

    threads = [threading.Thread(target=ask, kwargs={"is_short": s}) for s in (True, False)]
    for thread in threads:
        thread.start()
    noted.wait()
    try:
        assert asking.have_gone_on(10)
    finally:
        end.set()
        for thread in threads:
            thread.join()


_WAITING = """
import threading
from node.rpc.settling import Asking

asking, noted, end = Asking(), threading.Event(), threading.Event()
def ask():
    asking.note()
    noted.set()
    end.wait()
thread = threading.Thread(target=ask)
thread.start()
noted.wait()
assert all(asking.have_gone_on(10) for _ in range(30))
end.set()
"""


def test_waiting_raises_nothing_whatever_the_clock(tmp_path: Path) -> None:
    """What a fetcher raises has gRPC go on with the certificates that it had."""
    clock, runs = Clock(tmp_path), Node(tmp_path, "no", "no")
    clock.put_on(runs)
    clock.set_day(8)
    command = [*runs.prefix, sys.executable, "-c", _WAITING]
    subprocess.run(command, check=True, timeout=60, env=dict(os.environ))


def test_nothing_new_is_told_unless_something_is_new_by_value() -> None:
    """The snapshot is made anew every 30 seconds, mostly of the same certificates."""
    tls = [make_tls_identity(node_id(SigningKey.new().public), 1_790_000_000.0) for _ in range(3)]
    now = [TrustSnapshot(tls[0], frozenset([tls[1].certificate_der]))]
    fetcher = credentials._Fetcher(lambda: now[0])
    assert fetcher() is None
    now[0] = TrustSnapshot(replace(tls[0]), frozenset([bytes(bytearray(tls[1].certificate_der))]))
    assert fetcher() is None
    now[0] = TrustSnapshot(tls[0], frozenset(t.certificate_der for t in tls[1:]))
    assert isinstance(fetcher(), grpc.ServerCertificateConfiguration)
    assert fetcher() is None
    now[0] = TrustSnapshot(tls[0], frozenset())
    assert fetcher() is None, "changed again within half a second"
