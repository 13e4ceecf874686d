"""What the project promises of its size and shape: lines of each layer, and what a chapter imports."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("lab", "book", "course")
AIMS = {"core": 4000, "lab": 3600, "book": 2700, "course": 1300, "tests": 11000}
BUDGETS = {"core": 6556, "lab": 5340, "book": 4195, "course": 1817, "tests": 12434}
"""Lines that are allowed today. They may only fall, to those of the aims."""
LAID_OUT_BY_HAND = 26  # lines with `# fmt: skip`; the aim is 30
MODULES = 16  # that one chapter imports from; the aim is 8
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def files(part: str) -> list[Path]:
    """The Python files of a layer of the package, or of the tests."""
    if part == "tests":
        return sorted((ROOT / "tests").rglob("*.py"))
    everything = sorted((ROOT / "metarobust").rglob("*.py"))
    layers = {path: path.relative_to(ROOT / "metarobust").parts[0] for path in everything}
    return [path for path, layer in layers.items() if layer == part or (part == "core" and layer not in LAYERS)]


@pytest.mark.parametrize(("part", "most"), BUDGETS.items())
def test_a_layer_keeps_to_its_lines(part, most):
    lines = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in files(part)}
    assert AIMS[part] <= most
    assert sum(lines.values()) <= most, sorted(lines.items(), key=lambda one: -one[1])[:10]


def test_few_lines_are_laid_out_by_hand():
    texts = [path.read_text(encoding="utf-8") for part in ("core", *LAYERS) for path in files(part)]
    assert sum(text.count("# fmt: skip") for text in texts) <= LAID_OUT_BY_HAND


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_imports_from_few_modules_and_no_private_one(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    imported = set()
    for cell in cells:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            code = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "metarobust":
                    imported.add(node.module)
                    assert not [alias.name for alias in node.names if alias.name.startswith("_")]
                elif isinstance(node, ast.Import):
                    imported |= {alias.name for alias in node.names if alias.name.split(".")[0] == "metarobust"}
    assert not [name for name in imported if "._" in name]
    assert len(imported) <= MODULES, sorted(imported)
