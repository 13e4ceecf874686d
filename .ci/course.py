"""Write what is generated in the instructor's guide: how long things take, and which wrong answers are caught."""

import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "book" / "instructors.md"
MARK = "<!-- {name}: written by `make course`; do not edit -->\n"
END = "<!-- end of {name} -->"


def about(path: Path) -> dict:
    """What a notebook's metadata say of it."""
    return json.loads(path.read_text(encoding="utf-8"))["metadata"]["metarobust"]


def chapters() -> list[Path]:
    """The notebooks of the book, in its order."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return [ROOT / f"{file}.ipynb" for file in files if file.startswith("notebooks/")]


def took(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def times() -> str:
    """Seconds of computing of every chapter and assignment, as measured by whoever ran it last."""
    from metarobust import course

    rows = [
        "| | computing, 2 CPU cores (measured) | Colab, T4 (estimated) | reader's time (estimated) |",
        "|---|---|---|---|",
    ]
    for path in chapters():
        title = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
        title = "".join(title).splitlines()[0].removeprefix("# ")
        seconds = about(path)["seconds"]
        rows.append(f"| chapter *{title}* | {took(seconds)} | {took(seconds + 60)} | 60 min |")
    for number in course.NUMBERS:
        asked = course.assignment(number)
        seconds = about(ROOT / "notebooks" / "assignments" / f"{asked.slug}.ipynb")["seconds"]
        rows.append(f"| assignment {number}, *{asked.title}* | {took(seconds)} | {took(seconds + 60)} | 2 h |")
    return "\n".join(rows) + "\n"


def caught() -> str:
    """Of every property of every question: its points, what it asks, and wrong answers that it catches."""
    sys.path.insert(0, str(ROOT / "tests" / "course"))
    from answers import attacks, evaluation, mistakes, optimizer

    from metarobust import course

    answers = [*attacks.ANSWERS, *evaluation.ANSWERS, *optimizer.ANSWERS, *mistakes.ANSWERS]
    right = sum(not one.loses for one in answers)
    wrong = len(answers) - right
    parts = [f"{right} right answers in many styles get all points; {wrong} wrong ones lose what they violate.\n"]
    for number in course.NUMBERS:
        asked = course.assignment(number)
        parts.append(f"### {number}. {asked.title}: {asked.out_of} points\n")
        rows = ["| question | property | points | asks that | wrong answers that fail it |", "|---|---|---|---|---|"]
        for question in asked.questions:
            theirs = [one for one in answers if (one.number, one.question) == (number, question.name)]
            for p in question.properties:
                met = ", ".join(one.name for one in theirs if one.loses == {p.name})
                rows.append(f"| {question.name} `{question.answer}` | {p.name} | {p.points} | {p.asks} | {met} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def renewed(text: str) -> str:
    """The guide with both of its blocks written anew."""
    for name, block in (("times", times()), ("caught", caught())):
        head, rest = text.split(MARK.format(name=name))
        _, tail = rest.split(END.format(name=name))
        text = f"{head}{MARK.format(name=name)}\n{block}\n{END.format(name=name)}{tail}"
    return text


if __name__ == "__main__":
    GUIDE.write_text(renewed(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {GUIDE.relative_to(ROOT)}")
