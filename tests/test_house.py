"""How the package is laid out: one name for one thing, packages that say what they are for, few loose modules."""

from __future__ import annotations

import ast
from collections import Counter

from bitsure.config.paths import PROJECT

PACKAGE = PROJECT / "src" / "bitsure"
FILES = sorted(PACKAGE.rglob("*.py"))


def repeated(names: list[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def test_no_two_files_have_one_name():
    assert repeated([file.name for file in FILES if file.stem not in ("__init__", "__main__")]) == []


def test_no_two_classes_have_one_name():
    nodes = (node for file in FILES for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    assert repeated([node.name for node in nodes if isinstance(node, ast.ClassDef)]) == []


def test_each_package_says_what_belongs_there():
    packages = [file for file in FILES if file.name == "__init__.py"]
    assert [str(file) for file in packages if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))] == []
    assert {file.parent for file in FILES} == {file.parent for file in packages}


def test_few_modules_lie_outside_the_packages():
    assert {file.stem for file in PACKAGE.glob("*.py")} == {"__init__", "api", "cli"}
