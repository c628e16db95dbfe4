"""What changes the store says when that is durable, and what a cancellation leaves behind."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROMISE = re.compile(r"durabl|[Cc]ancel|[Kk]ill|[Rr]ecord|See `|[Dd]o as `")


def _public(tree: ast.Module) -> Iterator[ast.AsyncFunctionDef]:
    places: list[ast.Module | ast.ClassDef] = [tree]
    places += [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for place in places:
        for found in place.body:
            if isinstance(found, ast.AsyncFunctionDef) and not found.name.startswith("_"):
                yield found


def _writes(function: ast.AsyncFunctionDef) -> bool:
    calls = (n for n in ast.walk(function) if isinstance(n, ast.Call))
    return any(isinstance(c.func, ast.Attribute) and c.func.attr == "write" for c in calls)


def test_every_public_method_of_a_store_that_writes_makes_a_promise() -> None:
    silent, looked_at = [], 0
    for path in sorted((ROOT / "node" / "store").glob("*.py")):
        for function in _public(ast.parse(path.read_text())):
            if _writes(function):
                looked_at += 1
                if not _PROMISE.search(ast.get_docstring(function) or ""):
                    silent.append(f"{path.name}: {function.name}")
    assert looked_at > 30
    assert silent == []
