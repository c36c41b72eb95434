"""The maps in the READMEs: every equation that defines a computation is there, with code and a test that exist."""

import importlib
import re
from pathlib import Path

import pytest
from conftest import ALGORITHMS, ROOT

# What the book's section defines and the folder must compute.
DEFINED = {
    "reinforce": ["5.1", "5.2", "5.3", "5.4", "5.18"],
    "ac": ["5.6", "5.7", "5.8", "5.9", "5.10", "5.11", "5.12", "5.13", "5.19"],
    "a2c": ["5.20"],
    "a3c": ["5.21"],
    "trpo": ["5.22", "5.26", "5.27", "5.28", "5.29", "5.30", "5.31", "5.32", "5.33", "5.34"],
    "ppo": ["5.23", "5.24", "5.34", "5.37", "5.38", "5.39", "5.40", "5.41"],
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
        names, tests = re.findall(r"`([\w.]+)`", code), re.findall(r"`(tests/\w+\.py)::(\w+)`", test)
        assert names and tests, book
        for name in names:
            assert any(_has(module, name) for module in modules), f"{book}: {name}"
        for path, function in tests:
            assert re.search(rf"^def {function}\(", Path(ROOT, path).read_text(encoding="utf-8"), re.M), (
                f"{book}: {function}"
            )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_defining_equation_is_missing(algorithm):
    mapped = " ".join(_expand(book) for book, _, _ in book_map(algorithm))
    missing = [
        number for number in DEFINED[algorithm] if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", mapped)
    ]
    assert not missing


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
