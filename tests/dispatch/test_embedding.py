"""The wire modules run where nothing else is installed: Python 3.9 and its standard library."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import postgear.wire

FOLDER = Path(postgear.wire.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_wire_module_is_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_wire_module_imports_only_the_standard_library_and_its_neighbours(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1


def test_wire_is_imported_alone_by_an_older_python(tmp_path: Path) -> None:
    found = [shutil.which("python3.9"), *map(str, Path.home().glob(".pyenv/versions/3.9.*/bin/python"))]
    works = [path for path in found if path and subprocess.run([path, "-V"], capture_output=True, check=False).returncode == 0]
    if not works:
        pytest.skip("no python3.9 here")
    shutil.copytree(FOLDER, tmp_path / "wire")
    program = "import wire.connection, wire.admin; print(wire.connection.PacketReader().feed(b'status\\n'))"
    result = subprocess.run([works[0], "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stdout == "[(-1, (b'status',))]\n", result.stderr
