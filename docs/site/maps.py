"""The maps of the book as data: rows, the functions that they name with their lines, and the tests. Imports none of it.

A row that names a function or a test that is gone raises MapError, which says which row.
"""

import ast
import io
import re
import tokenize
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CODE = re.compile(r"`([^`]+)`")
TEST = re.compile(r"^(tests/\w+\.py)::(\w+)$")


class MapError(Exception):
    """A row of a map that leads nowhere; the message names the page, the row and what is missing."""


@dataclass(frozen=True)
class Function:
    """A function or class of the repository. lines: the numbers of its first and last line, decorators included."""

    path: str
    name: str
    lines: tuple[int, int]


@dataclass(frozen=True)
class Row:
    """A row of a map. book: its first cell as it is written; the functions that compute it, the tests that prove it."""

    book: str
    says: str
    functions: tuple[Function, ...]
    tests: tuple[Function, ...]

    @property
    def numbers(self) -> list[str]:
        """What it is about: '5.38' for an equation, 'Algorithm 5.20' for an algorithm, in order."""
        algorithms = re.findall(r"(?:Algorithm|算法) ?(\d\.\d+)", self.book)
        return re.findall(r"\((\d\.\d+)\)", self.book) + [f"Algorithm {number}" for number in algorithms]


class Sources:
    """The repository's Python files, each read once."""

    def __init__(self, root: Path = ROOT):
        self.root, self._files = root, {}

    def text(self, path: str) -> str:
        return self._read(path)[0]

    def functions(self, path: str) -> dict[str, Function]:
        """{'PPO.train_actor': Function} of a file; names that are bound to a function count as one."""
        return self._read(path)[1]

    def docstring(self, function: Function) -> range:
        """The lines of its docstring; an empty range if it has none."""
        return self._read(function.path)[2][function.name]

    def find(self, path: str, name: str) -> Function:
        """Raises KeyError if there is no such file or no such function in it."""
        return self.functions(path)[name]

    def bearing(self, function: Function, number: str) -> set[int]:
        """The lines of a function that bear the number of an equation: of the statement beside the comment, whole."""
        first, last = function.lines
        tree, comments = self._read(function.path)[3:]
        inner = (node for node in ast.walk(tree) if isinstance(node, ast.stmt))
        statements = [node for node in inner if first <= node.lineno and node.end_lineno <= last]
        found = set()
        for line, comment in comments.items():
            if first <= line <= last and number in mentioned(comment):
                inside = [n for n in statements if n.lineno <= line <= head(n)]
                smallest = min(inside, key=lambda n: head(n) - n.lineno, default=None)
                found |= set(range(smallest.lineno, head(smallest) + 1)) if smallest else {line}
        return found

    def naming(self, function: Function, number: str) -> set[int]:
        """The lines of its docstring that name the equation."""
        lines = self.text(function.path).splitlines()
        return {line for line in self.docstring(function) if number in mentioned(lines[line - 1])}

    def _read(self, path):
        if path not in self._files:
            file = self.root / path
            if not file.is_file():
                raise KeyError(path)
            text = file.read_text(encoding="utf-8")
            tree = ast.parse(text)
            functions, docstrings = {}, {}
            _collect(tree, path, "", functions, docstrings)
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
            self._files[path] = text, functions, docstrings, tree, comments
        return self._files[path]


def head(statement: ast.stmt) -> int:
    """The last line of a statement; of a long one with a body, of what stands before the body."""
    body = getattr(statement, "body", None)
    short = statement.end_lineno - statement.lineno < 4
    return body[0].lineno - 1 if body and not short else statement.end_lineno


def mentioned(text: str) -> set[str]:
    """The equations and algorithms that a comment names: 'Eq. (5.50)-(5.52)' are three, '(6.3), Algorithm 6.26' two."""
    found = set(re.findall(r"Algorithm \d\.\d+", text))
    found |= {number for number in re.findall(r"(?<!Algorithm )(?<!section )(?<![\d.])([56]\.\d+)(?![\d.]*\d)", text)}
    for chapter, first, last in re.findall(r"\((\d)\.(\d+)\)-\(\d\.(\d+)\)", text):
        found |= {f"{chapter}.{i}" for i in range(int(first), int(last) + 1)}
    return found


def _collect(node, path, prefix, functions, docstrings):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = prefix + child.name
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            functions[name] = Function(path, name, (first, child.end_lineno))
            documented = ast.get_docstring(child) is not None
            docstrings[name] = range(child.body[0].lineno, child.body[0].end_lineno + 1) if documented else range(0)
            if isinstance(child, ast.ClassDef):
                _collect(child, path, name + ".", functions, docstrings)
        elif isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name):
            name = prefix + child.targets[0].id
            functions.setdefault(name, Function(path, name, (child.lineno, child.end_lineno)))
            docstrings.setdefault(name, range(0))


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page of Markdown: rows of cells, the header first and without the line below it."""
    found, before = [], ""
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            if not before.startswith("|"):
                found.append([])
            if not re.fullmatch(r"[|:\-\s]+", line):
                found[-1].append(cells)
        before = line
    return found


def tests(page: str, book: str, cell: str, sources: Sources) -> tuple[Function, ...]:
    """The tests that a cell names."""
    found = []
    for path, name in (match.groups() for code in CODE.findall(cell) if (match := TEST.match(code))):
        try:
            found.append(sources.find(path, name))
        except KeyError:
            raise MapError(f"{page}, row '{book}': there is no test {path}::{name}") from None
    return tuple(found)


def folder_map(folder: str, text: str, page: str, sources: Sources) -> list[Row]:
    """The rows of a folder's own map, its README's first table with tests; names are of agent.py or main.py."""
    table = next(table for table in tables(text) if "`tests/" in str(table))
    rows = []
    for book, code, shown in table[1:]:
        functions = []
        for name in CODE.findall(code):
            places = [f"{folder}/agent.py", f"{folder}/main.py"]
            found = [sources.functions(place)[name] for place in places if name in sources.functions(place)]
            if not found:
                raise MapError(f"{page}, row '{book}': there is no {name} in {' or '.join(places)}")
            functions.append(found[0])
        rows.append(Row(book, "", tuple(functions), tests(page, book, shown, sources)))
    return rows


def book_map(text: str, page: str, sources: Sources) -> list[Row]:
    """The rows of docs/book-map.md. Code is written as `ppo/agent.py::PPO.train_actor`."""
    rows = []
    for book, says, code, shown in (row for table in tables(text) for row in table[1:]):
        functions = []
        for path, name in re.findall(r"`([\w/]+\.py)::([\w.]+)`", code):
            try:
                functions.append(sources.find(path, name))
            except KeyError:
                raise MapError(f"{page}, row '{book}': there is no {path}::{name}") from None
        rows.append(Row(book, says, tuple(functions), tests(page, book, shown, sources)))
    return rows


def slug(heading: str) -> str:
    """GitHub's anchor of a heading: letters (of any script), marks, digits, _ and - stay, spaces turn into -."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"^#+ ", "", heading)).strip().lower()
    kept = ((c, unicodedata.category(c)) for c in text)
    return "".join(c for c, kind in kept if c in "- " or kind in ("Nd", "Pc") or kind[0] in "LM").replace(" ", "-")


def errata(text: str, page: str, sources: Sources) -> None:
    """Every test that the errata name exists."""
    for where, *_, shown in (row for table in tables(text) for row in table[1:]):
        tests(page, where, shown, sources)
