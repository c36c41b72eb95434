"""The maps in the READMEs: every equation that defines a computation is there, with code and a test that exist.

The whole book's map, docs/book-map.md, has every equation once, and docs/errata.md a test for what it says.
"""

import importlib
import re
import shutil
from pathlib import Path

import pytest
from conftest import ALGORITHMS, ROOT

from docs import links

# What the book's section defines and the folder must compute.
DEFINED = {
    "reinforce": ["5.1", "5.2", "5.3", "5.4", "5.18"],
    "ac": ["5.6", "5.7", "5.8", "5.9", "5.10", "5.11", "5.12", "5.13", "5.19"],
    "a2c": ["5.20"],
    "a3c": ["5.21"],
    "trpo": ["5.22", "5.26", "5.27", "5.28", "5.29", "5.30", "5.31", "5.32", "5.33", "5.34"],
    "ppo": ["5.23", "5.24", "5.34", "5.37", "5.38", "5.39", "5.40", "5.41"],
    "acktr": ["5.25", *(f"5.{i}" for i in range(42, 53))],
    "ddpg": ["6.1", "6.2", "6.3", "6.4", "6.5", "6.6", "6.7", "6.8", "6.26"],
    "td3": ["6.12", "6.13", "6.14", "6.15", "6.16", "6.27"],
    "sac": ["6.17", "6.18", "6.19", "6.20", "6.21", "6.25", "6.26", "6.27", "6.28", "6.29"],
}


def book_map(algorithm):
    """Rows (book, code, test) of the table under the header | Book | Code | Test |."""
    text = (ROOT / algorithm / "README.md").read_text(encoding="utf-8")
    table = text.split("| Book | Code | Test |\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_entry_points_at_code_and_tests_that_exist(algorithm):
    modules = [importlib.import_module(f"{algorithm}.{name}") for name in ("agent", "main")]
    rows = book_map(algorithm)
    assert len(rows) >= 3
    for book, code, test in rows:
        names = re.findall(r"`([\w.]+)`", code)
        assert names and _tests(test), book
        for name in names:
            assert any(_has(module, name) for module in modules), f"{book}: {name}"
        assert not _missing(test), book


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_defining_equation_is_missing(algorithm):
    mapped = " ".join(_expand(book) for book, _, _ in book_map(algorithm))
    missing = [
        number for number in DEFINED[algorithm] if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", mapped)
    ]
    assert not missing


EQUATIONS = [f"5.{i}" for i in range(1, 53)] + [f"6.{i}" for i in range(1, 30)]
BOOKS_ALGORITHMS = [f"5.{i}" for i in range(18, 26)] + ["6.26", "6.27", "6.28"]
OTHERS = [
    *("Section 5.4", "Figure 5.1", "Figure 5.2", "Table 5.1", "Table 6.1", "Lemma 5.1", "Theorem 5.1", "Theorem 6.1"),
    *("Note 5.1", "Note 5.2", "Note 5.3", "Slides, A3C", "Slides, DPG", "Slides, DDPG", "Slides, TRPO", "Slides, PPO"),
]


def sections(page):
    """{title: rows of its tables, each a list of cells} of docs/<page>.md."""
    found = {}
    for part in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")][2:]
        found[part.splitlines()[0]] = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return found


def rows(page):
    return [row for section in sections(page).values() for row in section]


def test_every_equation_and_algorithm_is_in_the_whole_map_once():
    books = [row[0] for row in rows("book-map")]
    equations = [number for book in books if "Eq." in book for number in re.findall(r"\((\d\.\d+)\)", book)]
    assert sorted(equations) == sorted(EQUATIONS) and len(EQUATIONS) == 81
    algorithms = [number for book in books for number in re.findall(r"^Algorithm (\d\.\d+)", book)]
    assert sorted(algorithms) == sorted(BOOKS_ALGORITHMS) and len(BOOKS_ALGORITHMS) == 11
    for other in OTHERS:
        assert any(other in book for book in books), other


@pytest.mark.parametrize("title", sections("book-map"))
def test_every_row_of_the_whole_map_is_computed_checked_or_a_definition(title):
    for book, _, code, test in sections("book-map")[title]:
        named = re.findall(r"`(\w+)/(\w+)\.py::([\w.]+)`", code)
        assert named or code in ("statement", "definition"), book
        assert bool(_tests(test)) == (code != "definition"), book
        assert code != "definition" or len(test.split()) >= 3, f"{book}: why?"
        assert not _missing(test), book
        for folder, module, name in named:
            assert _has(importlib.import_module(f"{folder}.{module}"), name), f"{book}: {name}"


def test_what_the_errata_say_is_shown_by_tests_that_exist():
    for where, *_, shown in rows("errata"):
        assert _tests(shown) or shown.startswith("by reading"), where
        assert not _missing(shown), where


def test_daggers_and_errata_name_the_same_equations():
    """What the map marks as misprinted has a row of errata, and the other way round."""

    def numbers(cells):
        return {n for cell in cells for n in re.findall(r"\((\d\.\d+)\)|((?:Algorithm|Theorem|Note) \d\.\d+)", cell)}

    marked = numbers(row[0] for row in rows("book-map") if "†" in row[0])
    assert marked == numbers(row[0] for row in rows("errata"))


def test_the_maps_link_to_the_lines_where_the_functions_begin():
    assert not links.differences(), "links are stale: run `python docs/links.py`, which mends them"


def test_a_function_that_moves_or_a_link_that_is_missing_is_seen(tmp_path):
    for folder in ("ppo", "docs"):
        (tmp_path / folder).mkdir()
    for name in ("agent.py", "main.py", "README.md", "README.zh-CN.md"):
        shutil.copy(ROOT / "ppo" / name, tmp_path / "ppo" / name)
    agent, page = tmp_path / "ppo" / "agent.py", tmp_path / "ppo" / "README.md"
    assert not links.differences(tmp_path)
    source, text = (file.read_text(encoding="utf-8") for file in (agent, page))
    agent.write_text(
        source.replace("    def train_critic", "    # one line more\n    def train_critic"), encoding="utf-8"
    )
    moved = links.differences(tmp_path)
    assert {each.split(":")[0] for each in moved} == {"ppo/README.md", "ppo/README.zh-CN.md"}
    assert any("`PPO.train_critic`" in each for each in moved) and not any("train_actor`" in each for each in moved)
    agent.write_text(source, encoding="utf-8")
    page.write_text(re.sub(r"\[(`PPO.train_critic`)\]\([^)]*\)", r"\1", text), encoding="utf-8")
    assert len(links.differences(tmp_path)) == 1
    for new in links.stale(tmp_path).values():
        assert new == text


def _tests(cell):
    """(file, function) of every test that a cell names."""
    return re.findall(r"`(tests/\w+\.py)::(\w+)`", cell)


def _missing(cell):
    """The tests that a cell names and nobody has written."""
    return [
        function
        for path, function in _tests(cell)
        if not Path(ROOT, path).exists()
        or not re.search(rf"^def {function}\(", Path(ROOT, path).read_text(encoding="utf-8"), re.M)
    ]


def _expand(book):
    """'5.38-5.41' -> '5.38 5.39 5.40 5.41'."""
    for chapter, first, last in re.findall(r"(\d)\.(\d+)\s*[-\u2013]\s*\d\.(\d+)", book):
        book += " " + " ".join(f"{chapter}.{i}" for i in range(int(first), int(last) + 1))
    return book


def _has(module, dotted):
    for part in dotted.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True
