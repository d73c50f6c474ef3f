"""How the package is laid out: one name for one thing, packages that say what they are for, few loose modules."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

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
    assert {file.stem for file in PACKAGE.glob("*.py")} == {"__init__", "__main__", "api", "cli"}


def opens_in_the_locales_encoding(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield calls that read or write text without naming its encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        of = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        named = {keyword.arg for keyword in call.keywords}
        if "encoding" in named or getattr(of, "id", "") == "Image":  # Pillow's open reads pictures
            continue
        mode = next((given.value for given in call.args[of is None :] if isinstance(given, ast.Constant)), "r")
        is_text_file = (of and name in ("read_text", "write_text")) or (name == "open" and "b" not in mode)
        if is_text_file or named & {"text", "universal_newlines"}:
            yield call


def test_every_text_file_is_read_and_written_in_utf_8_whatever_the_locale():
    files = [PROJECT / "main.py", *FILES, *(PROJECT / "benchmarks").glob("*.py"), *(PROJECT / "pocket").glob("*.py")]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    calls = [f"{file.name}:{call.lineno}" for file, tree in trees.items() for call in opens_in_the_locales_encoding(tree)]
    assert calls == []
