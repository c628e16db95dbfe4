"""A secret under a passphrase: opened by it alone, and only as what it is."""

import pytest

from node.crypto.argon2 import FAST_FOR_TESTS
from node.crypto.passphrases import lock, unlock
from node.errors import KeysError

WORDS = b"six random words make a passphrase"


def test_secret_comes_out_by_its_passphrase_alone() -> None:
    locked = lock(b"secret", "kind", WORDS, FAST_FOR_TESTS)
    assert b"secret" not in str(locked).encode()
    assert unlock(locked, "kind", WORDS) == b"secret"
    with pytest.raises(KeysError, match="the passphrase is wrong"):
        unlock(locked, "kind", WORDS + b"!")
    with pytest.raises(KeysError, match="was altered"):
        unlock(locked, "another kind", WORDS)
    assert lock(b"secret", "kind", WORDS, FAST_FOR_TESTS)["sealed"] != locked["sealed"]


@pytest.mark.parametrize(
    "change",
    [{"ops": 1}, {"ops": 10**6}, {"memory_bytes": 1 << 40}, {"salt": "?"}, {"sealed": 5}],
)
def test_damaged_or_absurd_parameters_are_refused(change: dict[str, object]) -> None:
    locked = lock(b"secret", "kind", WORDS, FAST_FOR_TESTS)
    with pytest.raises(KeysError):
        unlock({**locked, **change}, "kind", WORDS)
    with pytest.raises(KeysError, match="damaged"):
        unlock(None, "kind", WORDS)


def test_short_passphrase_is_none() -> None:
    with pytest.raises(KeysError, match="shorter than 12"):
        lock(b"secret", "kind", b"short", FAST_FOR_TESTS)
