"""The masters of the assignments, and the functions that solve them."""

import json
import re
from pathlib import Path

from metarobust import course

ROOT = Path(__file__).resolve().parents[2]
MASTERS = ROOT / "notebooks" / "assignments"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def of(number):
    """The master of an assignment: (path, notebook)."""
    (found,) = [
        (p, n) for p in MASTERS.glob("*.ipynb") if (n := read(p))["metadata"]["metarobust"]["assignment"] == number
    ]
    return found


def published(number):
    """The student's notebook: (path, notebook)."""
    path = MASTERS / "student" / of(number)[0].name
    return path, read(path)


def functions(notebook):
    """The cells that define a function for a question, joined, after the imports of the notebook."""
    code = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    imports = "\n".join(line for text in code[1:] for line in re.findall(r"^(?:import|from) .*", text, flags=re.M))
    named = {
        question.answer for question in course.assignment(notebook["metadata"]["metarobust"]["assignment"]).questions
    }
    answers = [text for text in code if (found := re.match(r"def (\w+)\(", text)) and found[1] in named]
    return imports + "\n\n\n" + "\n\n\n".join(answers) + "\n"


def solve(number):
    """The functions of the solution, by name."""
    names = {}
    exec(functions(of(number)[1]), names)
    return names
