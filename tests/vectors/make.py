"""Make a folder of vectors, or what it lacks: `python -m tests.vectors.make NAME`.

What is there is never changed.
"""

import hashlib
import json
import sys
from pathlib import Path

from tests.vectors.catalogue import VECTORS, described

FOLDER = Path(__file__).parent


def main() -> None:
    """Write every vector that is not there, what it says, and the digests of both."""
    folder = FOLDER / sys.argv[1]
    folder.mkdir(exist_ok=True)
    told = folder / "says.json"
    says = json.loads(told.read_text()) if told.exists() else {}
    for name, vector in VECTORS.items():
        if (folder / name).exists():
            continue
        data = vector.make()
        says[name] = described(vector.open(data))
        (folder / name).write_bytes(data)
    told.write_text(json.dumps(says, indent=1, sort_keys=True) + "\n")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in _files(folder)]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")


if __name__ == "__main__":
    main()
