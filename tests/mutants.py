"""Mutants: the code broken in one place at a time, to see whether its tests notice.

python tests/mutants.py               all of tests/mutants.txt (`make mutants`)
python tests/mutants.py ppo common    those of these folders

An entry of mutants.txt is a file and what is broken there, the tests that must fail then, and the lines that change, as
in a diff: '-' goes, '+' comes, ' ' stays. What goes and stays must stand in the file exactly once. The tests are those
that the book's maps name for the line, where they do; `test_x` is of the folder's own file of tests, `ch6::test_x` of
tests/test_equations_ch6.py.

Mutants are put into a copy of the project and run one by one. One that no test notices survives: what it breaks is not
tested, and a test that proves it by its values belongs in the folder's file. A change that changes no result belongs
nowhere. The exit status is 1 if a mutant survives, and 2 if the tests could not be run.
"""

import contextlib
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".txt")
FILES = {"ch5": "equations_ch5", "ch6": "equations_ch6", "off": "off_policy"}
START = "fork" if sys.platform == "linux" else "spawn"  # what was imported before a fork need not be again
LIMIT = 300  # seconds that a mutant may take


class Mutant(NamedTuple):
    """path: of the file.  what: is broken.  tests: as pytest takes them.  old, new: lines, each with its end."""

    path: str
    what: str
    tests: list[str]
    old: str
    new: str

    @property
    def folder(self) -> str:
        return self.path.split("/")[0]

    def text(self, root: Path) -> str:
        """The whole file with the mutant in it. Raises ValueError if the old lines don't stand there exactly once."""
        text, old = (root / self.path).read_text(encoding="utf-8"), re.compile(f"^{re.escape(self.old)}", re.M)
        if (times := len(old.findall(text))) != 1:
            lines = " / ".join(line.strip() for line in self.old.splitlines())
            raise ValueError(f"{self.path}: {self.what}: these lines are there {times} times and not once: {lines}")
        return old.sub(lambda _: self.new, text)


def read(text: str) -> list[Mutant]:
    """The mutants of such a list."""
    mutants = []
    for entry in re.split("^== ", text, flags=re.M)[1:]:
        title, names, *lines = entry.rstrip("\n").split("\n")
        path, what = title.split(": ", 1)
        parts = [name.rpartition("::")[::2] for name in names.split()]
        files = [FILES.get(file, file) or path.split("/")[0] for file, _ in parts]
        tests = [f"tests/test_{file}.py::{test}" for file, (_, test) in zip(files, parts, strict=True)]
        old, new = ("".join(line[1:] + "\n" for line in lines if line[:1] in kept) for kept in (" -", " +"))
        mutants.append(Mutant(path, what, tests, old, new))
    return mutants


def main(folders: list[str]) -> int:
    """Run the mutants of the folders, or all; returns the exit status."""
    mutants = read(LIST.read_text(encoding="utf-8"))
    if unknown := {*folders} - {each.folder for each in mutants}:
        print(f"there are no mutants of {', '.join(sorted(unknown))}")
        return 2
    os.environ.update(JIT_COMPILE="0", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")  # XLA compiles for longer
    if START == "fork":  # not TensorLayer, which starts TensorFlow's threads: a fork would hang
        import gym  # noqa: F401
        import scipy.stats  # noqa: F401
        import tensorflow_probability  # noqa: F401
    return hunt(ROOT, [each for each in mutants if not folders or each.folder in folders])


def hunt(root: Path, mutants: list[Mutant]) -> int:
    """Run the mutants of the project at root and print how each fares; returns the exit status."""
    start, survivors = time.monotonic(), []
    try:
        texts = [each.text(root) for each in mutants]
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "copy"
            shutil.copytree(root, tree, ignore=shutil.ignore_patterns(".*", "*venv*", "__pycache__", "model", "image"))
            tests = sorted({test for each in mutants for test in each.tests})
            if failed := run(tree, tests):
                raise RuntimeError(f"the code as it is fails {failed}")
            print(f"{len(tests)} tests pass on the code as it is ({time.monotonic() - start:.0f} s)", flush=True)
            for each, text in zip(mutants, texts, strict=True):
                began, file = time.monotonic(), tree / each.path
                original = file.read_bytes()
                file.write_text(text, encoding="utf-8")
                failed = run(tree, each.tests)
                file.write_bytes(original)
                fate = f"dies ({failed})" if failed else "SURVIVES"
                print(f"{time.monotonic() - began:5.1f} s  {each.path}: {each.what}: {fate}", flush=True)
                survivors += [] if failed else [f"{each.path}: {each.what}"]
    except (ValueError, RuntimeError) as error:
        print(error)
        return 2
    print(f"{len(survivors)} of {len(mutants)} mutants survive ({time.monotonic() - start:.0f} s)")
    print("".join(f"{each}\n" for each in survivors), end="")
    return 1 if survivors else 0


def run(tree: Path, tests: list[str]) -> str:
    """The first of the tests that fails in the tree, in a process of its own; '' if none does.

    Raises RuntimeError with the end of what pytest says if they can't be run, or don't come to an end.
    """
    log = tree.parent / "log"
    process = multiprocessing.get_context(START).Process(target=_pytest, args=(tree, tests, log))
    process.start()
    process.join(LIMIT + 10 * len(tests))
    if process.is_alive():
        process.kill()
        process.join()
        raise RuntimeError(f"no end in {LIMIT} s: {' '.join(tests)}")
    output = log.read_text(encoding="utf-8")
    failed = re.findall(r"^(?:FAILED|ERROR) \S+?::(\S+)", output, re.M)
    if process.exitcode not in (0, 1) or len(failed) != process.exitcode:
        raise RuntimeError(f"{output[-3000:]}\npytest ended with status {process.exitcode}: {' '.join(tests)}")
    return failed[0] if failed else ""


def _pytest(tree, tests, log):
    import pytest

    ours = {str(ROOT), str(ROOT / "tests")}
    sys.path[:] = [place for place in sys.path if place not in ours]  # the copy's modules, not those of the project
    sys.dont_write_bytecode = True  # a mutant of the same length in the same second would not be seen
    os.chdir(tree)
    with open(log, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        options = ["-o", "addopts=", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short", "-rfE"]
        status = pytest.main([*options, *tests])
    sys.exit(int(status))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
