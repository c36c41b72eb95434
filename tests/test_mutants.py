"""The mutants are still what they say: each fits the code, and the tests that it names exist. None is run here."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ALGORITHMS, ROOT
from mutants import MUTANTS, broken, in_full

ENTRIES = [(path, *entry) for path, entries in MUTANTS.items() for entry in entries]


@pytest.mark.parametrize("path", MUTANTS)
def test_every_mutant_fits_and_is_another_program(path):
    original = ast.dump(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    for what, old, new, _ in MUTANTS[path]:
        assert ast.dump(ast.parse(broken(ROOT, path, old, new))) != original, what


def test_every_test_that_a_mutant_names_exists():
    for path, what, *_, names in ENTRIES:
        assert names, what
        for test in in_full(path, names):
            file, function = test.split("[")[0].split("::")
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", text, re.M), f"{path}: {what}: {test}"


def test_there_are_enough_of_them_and_no_two_are_the_same():
    counts = Counter(path.split("/")[0] for path, *_ in ENTRIES)
    assert sum(counts.values()) >= 60 and all(counts[folder] >= 5 for folder in [*ALGORITHMS, "common"])
    assert len({entry[:2] for entry in ENTRIES}) == len({(path, old, new) for path, _, old, new, _ in ENTRIES})
    assert len({entry[:2] for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("old, times", [("x = 2", 0), ("x", 2)])
def test_a_text_that_is_not_there_once_is_named(tmp_path, old, times):
    (tmp_path / "agent.py").write_text("x = 1\ny = x\n")
    with pytest.raises(ValueError, match=rf"^agent\.py has this text {times} times and not once: {old}$"):
        broken(tmp_path, "agent.py", old, "x = 3")


def test_the_hunt_tells_who_survives_and_leaves_the_project_alone(tmp_path):
    """On a project of two lines, in a process of its own."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/agent.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "tests/test_toy.py").write_text(
        "from toy.agent import double\n\n\ndef test_weak():\n    assert double(0) == 0\n\n\n"
        "def test_strong():\n    assert double(3) == 6\n\n\ndef test_wrong():\n    assert double(1) == 1\n"
    )

    def hunt(*entries):
        script = (
            "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\nimport mutants\n"
            f"sys.exit(mutants.hunt(Path(sys.argv[2]), {{'toy/agent.py': {list(entries)}}}))"
        )
        command = [sys.executable, "-c", script, str(ROOT / "tests"), str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return result.returncode, result.stdout

    status, output = hunt(("three", "2 *", "3 *", "test_weak"), ("plus", "2 *", "2 +", "test_weak test_strong"))
    assert status == 1 and "three: SURVIVES" in output and "plus: dies (test_weak)" in output
    assert output.endswith("s)\ntoy/agent.py: three\n") and "1 of 2 mutants survive" in output
    status, output = hunt(("three", "2 *", "3 *", "test_weak test_strong"))
    assert status == 0 and "three: dies (test_strong)" in output and "0 of 1 mutants survive" in output
    assert hunt(("three", "2 *", "3 *", "test_wrong")) == (2, "the code as it is fails test_wrong\n")
    assert hunt(("four", "4 *", "3 *", "test_weak"))[0] == 2
    status, output = hunt(("no program", "2 *", "2 * *", "test_weak"))
    assert status == 2 and "SyntaxError" in output
    assert hunt(("gone", "2 *", "3 *", "test_gone"))[0] == 2
    assert (tmp_path / "toy/agent.py").read_text() == "def double(x):\n    return 2 * x\n"
