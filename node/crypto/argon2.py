"""Argon2id in a short-lived child process.

A key from a passphrase needs 256 MiB for half a second. In a child of its own that memory
is returned to the system when the child ends, instead of staying with the node for months.
"""

import base64
import json
import sys
from dataclasses import dataclass

import nacl.pwhash

from node.errors import KeysError
from node.sandbox import children
from node.sandbox.confine import confine_to_computing

# Bounds for parameters that come from a file that others can write: enough work to slow down
# guessing, and no more memory than a node can spare.
_MIN_OPS, _MAX_OPS = 3, 16
_MIN_BYTES, _MAX_BYTES = 64 * 2**20, 512 * 2**20
_OTHER_BYTES = 512 * 2**20  # of address space: the interpreter and its libraries


@dataclass(frozen=True, slots=True)
class Cost:
    """How much work one guess of the passphrase takes."""

    ops: int
    memory_bytes: int

    def __post_init__(self) -> None:
        if not (_MIN_OPS <= self.ops <= _MAX_OPS):
            raise KeysError(f"Argon2id passes must be {_MIN_OPS} to {_MAX_OPS}")
        if not (_MIN_BYTES <= self.memory_bytes <= _MAX_BYTES):
            raise KeysError("Argon2id memory must be 64 to 512 MiB")


MODERATE = Cost(3, 256 * 2**20)
FAST_FOR_TESTS = Cost(3, 64 * 2**20)


def stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    """Return the 32-byte key for a passphrase. Blocks for about half a second.

    Raises:
        KeysError: the child could not get the memory, or died.
    """
    request = {
        "passphrase": base64.b64encode(passphrase).decode(),
        "salt": base64.b64encode(salt).decode(),
        "ops": cost.ops,
        "memory_bytes": cost.memory_bytes,
    }
    done = children.run("node.crypto.argon2", given=json.dumps(request).encode(), seconds=120)
    if done.status != 0 or len(done.output) != 32:
        raise KeysError(
            f"Argon2id failed: it needs {cost.memory_bytes // 2**20} MiB of free memory"
        )
    return done.output


def _child() -> None:
    request = json.load(sys.stdin)
    cost = Cost(request["ops"], request["memory_bytes"])
    confine_to_computing(cost.memory_bytes + _OTHER_BYTES)
    key = nacl.pwhash.argon2id.kdf(
        32,
        base64.b64decode(request["passphrase"]),
        base64.b64decode(request["salt"]),
        opslimit=cost.ops,
        memlimit=cost.memory_bytes,
    )
    sys.stdout.buffer.write(key)


if __name__ == "__main__":
    _child()
