"""Imports go down the floors that CONTRIBUTING.md lists."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "thalweg"


def floors():
    """For every module or package of the library, the line that it is on."""
    _, _, text = (ROOT / "CONTRIBUTING.md").read_text().partition("A module imports from lines")
    block = text.split("\n\n")[1]
    lines = enumerate(reversed(block.splitlines()))
    return {name.strip(): floor for floor, line in lines for name in line.split(",")}


def imported(path):
    """What a file imports from the library, its own package left out."""
    parts = path.relative_to(PACKAGE).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = parts[: len(parts) - node.level]
            whole = [*above, *(node.module or "").split(".")] if node.module else above
            found = whole[:1] or [alias.name for alias in node.names]
            yield from (name for name in found if name != parts[0].removesuffix(".py"))


def test_imports_go_down():
    floor, files = floors(), [p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE]
    files += [p for p in PACKAGE.glob("*.py") if not p.name.startswith("__")]
    for path in files:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imported(path):
            assert floor[name] < floor[own], f"{path.relative_to(ROOT)} imports {name}"
    assert {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in files} == floor.keys()
