"""Each README and page of docs/ in two languages: the same headings, commands, tables, figures, numbers and links.

Sentences are not compared, but what a section says in numbers and in `code` is. A million is 100 万 here. No link leads
nowhere.
"""

import functools
import importlib
import re
import shlex
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from common import command, compare, environments
from docs.site.maps import slug

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ["", "benchmarks", "common", *sorted(page.parent.name for page in ROOT.glob("*/main.py"))]
ENGLISH = [
    *(f"{folder}/README.md".lstrip("/") for folder in FOLDERS),
    *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md") if ".zh-CN" not in page.name),
]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])

CODE = re.compile(r"`([^`]+)`")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)]+)\)")
UNITS = {"million": 10**6, "万": 10**4, "亿": 10**8}
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])([-+]?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)*(?:e-?[0-9]+)?)(?: ?(million|万|亿))?")


def numbers(text):
    """How often each number is in the text; 0.4 to 0.7 million and 40 万至 70 万 are the same two."""
    text = re.sub(r"([0-9.]+) to ([0-9.]+) million", r"\1 million to \2 million", text)
    found = Counter()
    for number, unit in NUMBER.findall(text):
        number = number.replace(",", "")
        section = number.count(".") > 1  # 5.10.2
        found[number if section else Decimal(number) * UNITS.get(unit, 1)] += 1
    return found


@functools.cache
def facts(text):
    """The numbers, the `code` and the figures of a piece of text; where its links lead is no part of it."""
    figures = IMAGE.findall(text)
    text = LINK.sub(r"\1", IMAGE.sub("", text))
    return numbers(CODE.sub(" ", text)), Counter(CODE.findall(text)), figures


@functools.cache
def cells(line):
    """The cells of a table's line; a | inside `code` ends none."""
    return re.findall(r"((?:`[^`]*`|[^|`])*)\|", line.strip().removeprefix("|"))


def blocks(prose):
    """How many paragraphs and items of lists a piece of text has."""
    return sum(len(re.findall(r"^- ", part, re.M)) or 1 for part in re.split(r"\n\s*\n", prose) if part.strip())


def sections(text):
    """[(heading, prose, code lines, table rows)] of a page."""
    found = []
    fenced = False
    before = ""
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            found[-1][2].append(line)
        elif fenced or (line.startswith("    ") and (not before.strip() or before.startswith("    "))):
            # A comment has its own words, but it is there in both.
            found[-1][2].append(re.sub(r"(^|\s+)#.*", "  #", line))
        elif re.match(r"#+ ", line):
            found.append((line, [], [], []))
        elif line.startswith("|"):
            found[-1][3].append([facts(cell) for cell in cells(line)])
        else:
            found[-1][1].append(line)
        before = line
    return [(heading, "\n".join(prose), code, rows) for heading, prose, code, rows in found]


def differences(english, chinese):
    """What one page has and the other has not, in words; links are test_links_lead_to_the_same_places."""
    mine, theirs = sections(english), sections(chinese)
    levels = [[len(heading.split()[0]) for heading, *_ in page] for page in (mine, theirs)]
    if levels[0] != levels[1]:
        return [f"headings: {levels[0]} and {levels[1]}"]
    found = []
    for (heading, prose, code, rows), (heading_, prose_, code_, rows_) in zip(mine, theirs, strict=True):
        here = f"{heading} / {heading_}: "
        if blocks(prose) != blocks(prose_):
            found.append(here + f"{blocks(prose)} and {blocks(prose_)} paragraphs and items")
        if facts(heading) != facts(heading_):
            found.append(here + "numbers or code of the heading")
        for what, a, b in zip(("numbers", "code", "figures"), facts(prose), facts(prose_), strict=True):
            if a != b:
                only = f"{a - b} and {b - a}" if isinstance(a, Counter) else f"{a} and {b}"
                found.append(here + f"{what} of the text: {only}")
        if code != code_:
            found.append(here + f"commands: {sorted({*code} ^ {*code_})}")
        if [len(row) for row in rows] != [len(row) for row in rows_]:
            found.append(here + f"{len(rows)} and {len(rows_)} rows, or another number of columns")
            continue
        for i, (row, row_) in enumerate(zip(rows, rows_, strict=True)):
            found += [here + f"row {i}: {a} and {b}" for a, b in zip(row, row_, strict=True) if a != b]
    return found


def both(page):
    """The files of a page, the English and the Chinese one."""
    return [ROOT / page, ROOT / page.replace(".md", ".zh-CN.md")]


def pair(page):
    return [file.read_text(encoding="utf-8") for file in both(page)]


@pytest.mark.parametrize("page", ENGLISH)
def test_both_languages_have_the_same_content(page):
    assert differences(*pair(page)) == []


@pytest.mark.parametrize("page", ENGLISH)
def test_each_language_links_to_the_other_below_the_title(page):
    english, chinese = (text.splitlines() for text in pair(page))
    names = [file.name for file in both(page)]
    assert english[1:4] == ["", f"[中文说明]({names[1]})", ""]
    assert chinese[1:4] == ["", f"[English]({names[0]})", ""]


@pytest.mark.parametrize("page", ENGLISH)
@pytest.mark.parametrize("language", [0, 1])
def test_a_missing_heading_row_command_or_figure_is_seen(page, language):
    """Each of them is taken out of one of the two pages in turn."""
    pages = pair(page)
    lines = pages[language].splitlines()
    fenced = False
    tried = Counter()
    for i, line in enumerate(lines):
        fenced ^= line.startswith("```")
        command = fenced and not line.startswith("```")
        kind = "command" if command else {"#": "heading", "|": "row", "!": "figure"}.get(line[:1])
        if kind:
            tried[kind] += 1
            texts = [*pages]
            shortened = [IMAGE.sub("", line, count=1)] if kind == "figure" else []
            texts[language] = "\n".join([*lines[:i], *shortened, *lines[i + 1 :]])
            if kind == "heading" and i == 0:
                continue  # a page without a title is no page
            assert differences(*texts), line
    assert len(tried) >= (2 if page.startswith(("docs/", "common/")) else 3 if page == "README.md" else 4), tried


def test_a_changed_number_or_name_is_seen():
    table = "# T\n\nSome 5 `a`.\n\n| A | B |\n|---|---|\n| 15 million `--x` | -3.5 |\n"
    chinese = table.replace("15 million", "1,500 万")
    assert not differences(table, chinese)
    for old, new in [("1,500", "150"), ("-3.5", "3.5"), ("--x", "--y"), ("| 1", "| | 1"), ("`a`", "a"), ("5 `", "6 `")]:
        assert old in chinese and differences(table, chinese.replace(old, new)), (old, new)


@functools.cache
def anchors(page):
    """The anchors of a page, in order; the second of two equal ones ends in -1. A source's are its lines: L1, L2."""
    if page.suffix == ".py":
        return [f"L{i}" for i, _ in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)]
    seen = Counter()
    found = []
    for heading, *_ in sections(page.read_text(encoding="utf-8")):
        name = slug(heading)
        found.append(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def links(page):
    """Every (target file, anchor) that a page links to or shows, code left out; the file is "" for the web."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = []
    for target in [target for _, target in LINK.findall(CODE.sub("", text))] + IMAGE.findall(text):
        if "://" in target:
            found.append(("", target))
        else:
            path, _, anchor = target.partition("#")
            found.append(((page.parent / path).resolve() if path else page, anchor))
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_no_link_leads_nowhere(page):
    for target, anchor in links(page):
        if target:
            assert target.exists(), target
            assert not anchor or anchor in anchors(target), f"{target}#{anchor}"


@pytest.mark.parametrize("page", ENGLISH)
def test_links_lead_to_the_same_places(page):
    """A Chinese page links to Chinese pages, and to the heading that is at the same place as in English."""

    def places(file):
        for target, anchor in links(file):
            if not target:
                yield anchor
            else:
                index = anchors(target).index(anchor) if anchor else None
                yield str(target).replace(".zh-CN", ""), index

    files = both(page)
    assert Counter(places(files[0])) == Counter(places(files[1]))
    for own, other in (files, files[::-1]):
        targets = [target for target, _ in links(own) if target and target.suffix == ".md"]
        targets = [target for target in targets if ".zh-CN" in target.name or target.with_suffix(".zh-CN.md").exists()]
        strangers = [target for target in targets if (".zh-CN" in target.name) != (".zh-CN" in own.name)]
        assert strangers == [other], f"{own} links to the other language"


def commands(text):
    """(script, flags) of each command of a folder or of compare.py that has flags, but for those with ... in them."""
    text = re.sub(r"\\\n", " ", text)
    for script, rest in re.findall(r"\bpython ([a-z0-9]+/(?:main|compare)\.py)([^\n`|]*)", text):
        flags = shlex.split(rest, comments=True)
        if flags and not {"...", "…"} & set(flags):
            yield script, flags


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_printed_command_is_accepted(page, monkeypatch):
    """Read as its program reads it: all flags are there, with values that it takes, and the band is shipped."""
    for script, flags in commands(page.read_text("utf-8")):
        if script == "common/compare.py":
            options = command.read(compare.Options, flags)
            main = importlib.import_module(f"{options.algorithm}.main")
            compare.read_band(options.algorithm, environments.current_id(options.env or main.Config.env))
        else:
            main = importlib.import_module(script.removesuffix(".py").replace("/", "."))
            monkeypatch.setattr(sys, "argv", [script, *flags])
            command.parse(main.Config, main.PRESETS)


def test_githubs_anchors():
    """As GitHub makes them: punctuation goes, also the Chinese; letters of any script stay."""
    assert slug("## 5.9 ACKTR") == "59-acktr"
    assert slug("## A generator and its judge (section 5.4)") == "a-generator-and-its-judge-section-54"
    assert slug("## 多台机器（用 `--ray`）：Worker 节点") == "多台机器用---rayworker-节点"


def test_the_page_of_common_names_every_module_in_both_languages():
    english, chinese = pair("common/README.md")
    assert differences(english, chinese) == []
    modules = {file.stem for file in (ROOT / "common").glob("*.py")} - {"__init__"}
    named = {name for line in english.splitlines() if line.startswith("| `") for name in CODE.findall(cells(line)[0])}
    assert named == modules
