"""Every skipped test says what is missing and how to get it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def skips() -> Iterator[tuple[str, str | None]]:
    """Place and reason of every skip in the tests; None without a reason."""
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = node.func.attr
                given = [k.value for k in node.keywords if k.arg == "reason"] + (
                    node.args[:1] if name == "skip" else []
                )
                if name in ("importorskip", "skipif", "skip"):
                    yield f"{path.name}:{node.lineno}", ast.unparse(given[0]) if given else None


def test_reasons() -> None:
    found = list(skips())
    assert len(found) > 15
    for place, reason in found:
        assert reason is not None, place
        assert "needs " in reason, place


def test_missing_packages_come_with_their_command() -> None:
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                assert "pip install" in ast.unparse(node), f"{path.name}:{node.lineno}"
