"""The parser process: fresh and confined, so that an attacker gains nothing by taking it over.

`python -m node.dicom.worker ARENA_FD ARENA_BYTES OUTPUT_FD` maps the arena that the node shares
with it, and its own output, and answers one JSON line for each JSON line it reads:

- `{"files": [[offset, length], ...]}`: whole files lying in the arena; the answer is the
  verdicts on the first of them, as many as it took one turn to reach.
- `{"window": [offset, length], "passed": m, "session": s, "is_first": b, "is_last": b, "size":
  n}`: the next bytes of one file that is larger than a slab, after `m` bytes that were left out;
  the answer is what is known so far and how many bytes may be left out now, a refusal is final.
  Walks of several files go on side by side; `"drop": [s, ...]` in any request ends some.
- `{"chunk": [offset, length, codec, plaintext bytes], ...}`: an encoded chunk lying in the arena.
  With `"pieces": [length, ...]` the answer has the digest of each piece of its plaintext, and with
  `"files": [piece, ...]` the verdicts on the first of those pieces, which are whole files. With
  `"piece": n` and what a window has beside it, that piece is the next window of one file, and the
  last answer has the digest of the whole file. With `"output": true` the plaintext is written to
  the output. The answer `{"is_damaged": true}` says that the chunk does not expand.

It reads nothing else and writes nothing else. If it dies or hangs, the node holds the files
that it was given and starts another.
"""

import json
import mmap
import sys
import warnings

from node.sandbox.confine import confine_to_computing
from node.system.memory import tune_memory

MEMORY_LIMIT_BYTES = 1 << 30


def confine() -> dict[str, str]:
    """Give up what parsing does not need; return the layers that the kernel denied, and why."""
    return confine_to_computing(MEMORY_LIMIT_BYTES)


def main() -> None:
    """Serve until standard input closes."""
    from node.codec import jpeg_ls
    from node.dicom.answering import Server
    from node.dicom.limits import load_codecs

    warnings.simplefilter("ignore")
    tune_memory()
    arena_fd, size, output_fd = map(int, sys.argv[1:])
    # The mappings outlive the descriptors, which are closed together with all others.
    arena = mmap.mmap(arena_fd, size, prot=mmap.PROT_READ)
    output = mmap.mmap(output_fd, 0)
    load_codecs()
    jpeg_ls.load()
    denied = confine()
    server = Server(memoryview(arena), memoryview(output))
    out = sys.stdout.buffer
    out.write(json.dumps({"denied": denied}).encode() + b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        out.write(json.dumps(server.answer(json.loads(line))).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
