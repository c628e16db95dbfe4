"""Generate the protobuf stubs that are committed beside the .proto files.

`python -m tests.architecture.stubs --write` renews them; the test beside this file proves
that they are fresh.
"""

import importlib.resources
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"


def generate(out: Path) -> list[Path]:
    """Generate all stubs below `out` and return their paths relative to it."""
    sources = sorted(str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={PROTO}",
            f"--proto_path={well_known}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--descriptor_set_out={out / 'emix' / 'emix.protoset'}",
            "--include_imports",
            *sources,
        ],
        check=True,
        cwd=PROTO,
    )
    return sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())


def main() -> None:
    """Write the stubs, or check them without `--write`."""
    if "--write" in sys.argv:
        generate(PROTO)
        return
    with tempfile.TemporaryDirectory() as temp:
        (Path(temp) / "emix").mkdir()
        stale = [
            str(path)
            for path in generate(Path(temp))
            if not (PROTO / path).exists()
            or (PROTO / path).read_bytes() != (Path(temp) / path).read_bytes()
        ]
    if stale:
        sys.exit(f"stale stubs, run `make proto`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
