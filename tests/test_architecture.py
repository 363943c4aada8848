"""The import rule of the design: synth and curricula import mixer, never each other; mixer imports neither."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mixer", "synth", "curricula")
HEAVY = {"torch", "vllm", "transformers"}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(top-level package, whether the import stands inside a function) for every import of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(((node.module or "").split(".")[0], id(node) in inside))
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_packages_import_in_one_direction():
    allowed = {"mixer": {"mixer"}, "synth": {"synth", "mixer"}, "curricula": {"curricula", "mixer"}}
    seen = 0
    for package in PACKAGES:
        for path in files(package):
            for name, is_inside in imports(path):
                if name in PACKAGES and name not in allowed[package]:
                    assert path.parent == ROOT / "mixer" / "commands", f"{path} imports {name}"
                    assert is_inside, f"{path} imports {name} outside a command function"
                seen += 1
    assert seen > 100


def test_mixer_loads_no_torch_and_no_vllm():
    for path in files("mixer"):
        assert not HEAVY & {name for name, _ in imports(path)}, path


def test_help_loads_nothing_heavy():
    code = "import sys, mixer.cli; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    for name in ("torch", "vllm", "transformers", "polars", "pydantic", "datatrove", "numba"):
        assert f"'{name}'" not in loaded


def test_files_stay_short_and_grab_bags_out():
    for package in PACKAGES:
        for path in files(package):
            assert len(path.read_text("utf-8").splitlines()) <= 300, path
            assert path.stem not in {"utils", "util", "helpers", "common", "misc"}, path
