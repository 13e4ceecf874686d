"""Write a new public address into every file that repeats it: address.py https://github.com/OWNER/NAME."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/([\w-]+/[\w.-]+)")


def current(root: Path = ROOT) -> str:
    """The one place where the address stands."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def texts(root: Path = ROOT) -> Iterator[Path]:
    """The files that may hold the address."""
    for folder in (".", ".ci", "book", "notebooks", "metarobust", "tests"):
        for path in sorted((root / folder).glob("*" if folder == "." else "**/*")):
            if path.suffix in {".md", ".ipynb", ".toml", ".yml", ".cff", ".py", ".txt"}:
                yield path


def move(text: str, old: str, new: str) -> str:
    """Replace OWNER/NAME in plain, raw, Colab and pip addresses."""
    before, after = (ADDRESS.fullmatch(address)[1] for address in (old, new))
    return re.sub(rf"(github(?:usercontent)?(?:\.com)?/){re.escape(before)}(?![\w-])", rf"\g<1>{after}", text)


def main(given: str) -> int:
    new = given.rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(new):
        print(f"address {given!r} is not of the form https://github.com/OWNER/NAME", file=sys.stderr)
        return 2
    old = current()
    for path in texts():
        text = path.read_text()
        moved = move(text, old, new)
        if moved != text:
            path.write_text(moved)
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
