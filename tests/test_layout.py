"""Imports in vessels/ go in one direction, and files and functions are short."""

import ast
import re

import pytest
from conftest import ROOT

FILES = sorted((ROOT / "vessels").rglob("*.py"))
ROOMS = {"files": 0, "data": 1, "metrics": 1, "network": 1, "record": 2, "release": 3, "migrate": 3, "prediction": 3,
         "report": 4, "jobs": 4, "evaluation": 5, "training": 5}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """Modules that a file imports, at the top or in a function: set of str."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= inner or {node.module}
    return found


MODULES = {name_of(path): path for path in FILES}


def room(module):
    return module.split(".")[1]


CALL = re.compile(r"(?:(?<!Image)(?<!os)(?<!tarfile)\.open|read_text|write_text)\((.*)")


@pytest.mark.parametrize("path", [*FILES, *ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")],
                         ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_is_utf8_on_every_system(path):
    """Windows has another encoding. Ruff refuses `open` itself in favour of `Path.open`."""
    calls = CALL.findall(path.read_text(encoding="utf-8"))
    assert not [call for call in calls if "encoding=" not in call and not re.search("[\"'][rwa]b[\"']", call)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_arrows_go_one_way(path):
    own = name_of(path)
    assert not imports(path) & {"rsan_model", "attention_module", "dropblock", "fused"}
    for other in imports(path) & set(MODULES) - {"vessels"}:
        assert room(other) == room(own) or ROOMS[room(other)] < ROOMS[room(own)], f"{own} imports {other}"


def test_no_circles():
    left = {name: imports(path) & set(MODULES) - {"vessels"} for name, path in MODULES.items()}
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sizes(path):
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert len(text.splitlines()) <= 350
    assert not [node.name for node in functions if node.end_lineno - node.lineno >= 45]
