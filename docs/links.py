"""The links from the maps to the lines of the code, made anew: python docs/links.py, after a function has moved.

With --check nothing is written: it says which links are stale, and ends with status 1 if one is.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.site.maps import Sources

NAME = re.compile(r"\[?`(?:([\w/]+\.py)::)?([A-Za-z_][\w.]*)`(?:\]\([^)]*\))?")


def pages(root: Path = ROOT) -> list[Path]:
    """The pages with maps: each folder's README and the whole book's map, in every language there is."""
    folders = (page for agent in root.glob("*/agent.py") for page in agent.parent.glob("README*.md"))
    return sorted([*folders, *root.glob("docs/book-map*.md")])


def refreshed(page: Path, sources: Sources) -> str:
    """The text of a page whose maps link to today's lines. A name that no file has stays as it is, without a link."""
    folder = page.parent.name

    def link(match):
        path, name = match.groups()
        for place in [path] if path else [f"{folder}/agent.py", f"{folder}/main.py"]:
            if (sources.root / place).is_file() and name in sources.functions(place):
                target = f"../{place}" if path else place.split("/")[1]
                code = f"{path}::{name}" if path else name
                return f"[`{code}`]({target}#L{sources.find(place, name).lines[0]})"
        return f"`{path}::{name}`" if path else f"`{name}`"

    lines = page.read_text(encoding="utf-8").split("\n")
    for i, line in enumerate(lines):
        cells = line.split(" | ")
        if line.startswith("| ") and len(cells) >= 3 and "`tests/" in cells[-1]:  # the code stands before the tests
            cells[-2] = NAME.sub(link, cells[-2])
            lines[i] = " | ".join(cells)
    return "\n".join(lines)


def stale(root: Path = ROOT) -> dict[Path, str]:
    """{page: what it should be} of the pages with a link that leads to another line than the function's."""
    sources = Sources(root)
    new = {page: refreshed(page, sources) for page in pages(root)}
    return {page: text for page, text in new.items() if text != page.read_text(encoding="utf-8")}


def differences(root: Path = ROOT) -> list[str]:
    """The lines that are stale, as they should be."""
    found = []
    for page, text in stale(root).items():
        before = page.read_text(encoding="utf-8").split("\n")
        pairs = zip(before, text.split("\n"), strict=True)
        found += [f"{page.relative_to(root).as_posix()}:{i}: {b[:100]}" for i, (a, b) in enumerate(pairs, 1) if a != b]
    return found


def main():
    if sys.argv[1:] == ["--check"]:
        if found := differences():
            sys.exit("\n".join([*found, "These links lead to other lines now: python docs/links.py mends them."]))
    elif sys.argv[1:]:
        print("error: give --check, or nothing", file=sys.stderr)
        sys.exit(2)
    else:
        for page, text in stale().items():
            page.write_text(text, encoding="utf-8", newline="\n")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
