"""The mutants are still what they say: each fits the code, and the tests that it names exist. None is run here."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ALGORITHMS, ROOT
from mutants import LIST, read

MUTANTS = read(LIST.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted({each.path for each in MUTANTS}))
def test_every_mutant_fits_and_is_another_program(path):
    original = ast.dump(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    for each in MUTANTS:
        if each.path == path:
            assert ast.dump(ast.parse(each.text(ROOT))) != original, each.what


def test_every_test_that_a_mutant_names_exists():
    for each in MUTANTS:
        assert each.tests, each.what
        for test in each.tests:
            file, function = test.split("[")[0].split("::")
            assert (ROOT / file).exists(), f"{each.path}: {each.what}: {test}"
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", text, re.M), f"{each.path}: {each.what}: {test}"


def test_there_are_enough_of_them_and_no_two_are_the_same():
    counts = Counter(each.folder for each in MUTANTS)
    assert len(MUTANTS) >= 60 and all(counts[folder] >= 5 for folder in [*ALGORITHMS, "common"])
    assert len({(each.path, each.what) for each in MUTANTS}) == len(MUTANTS)
    assert len({(each.path, each.text(ROOT)) for each in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("old, times", [("x = 2", 0), ("y = 1", 2), ("= 1", 0)])
def test_lines_that_are_not_there_once_are_named(tmp_path, old, times):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/agent.py").write_text("x = 1\ny = 1\ny = 1\n")
    (mutant,) = read(f"== toy/agent.py: two\n   test_x\n-{old}\n+x = 3\n")
    message = f"toy/agent.py: two: these lines are there {times} times and not once: {old}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        mutant.text(tmp_path)


def test_an_entry_by_hand(tmp_path):
    first, second = read(
        "== toy/agent.py: x is: 2\n   test_a ch6::test_b[td3]\n-x = 1\n+x = 2\n y = 1\n\n"
        "== toy/main.py: no y\n   test_c\n-    y = 1\n"
    )
    assert first[:3] == (
        "toy/agent.py",
        "x is: 2",
        ["tests/test_toy.py::test_a", "tests/test_equations_ch6.py::test_b[td3]"],
    )
    assert first[3:] == ("x = 1\ny = 1\n", "x = 2\ny = 1\n") and second[3:] == ("    y = 1\n", "")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/agent.py").write_text("x = 1\ny = 1\nz = 1\n")
    assert first.text(tmp_path) == "x = 2\ny = 1\nz = 1\n"


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

    def hunt(new, tests, old="2 * x"):
        entry = f"== toy/agent.py: a mutant\n   {tests}\n-    return {old}\n+    return {new}\n"
        script = (
            "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\nimport mutants\n"
            "sys.exit(mutants.hunt(Path(sys.argv[2]), mutants.read(sys.argv[3])))"
        )
        command = [sys.executable, "-c", script, str(ROOT / "tests"), str(tmp_path), entry]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return result.returncode, result.stdout

    status, output = hunt("3 * x", "test_weak")
    assert status == 1 and "toy/agent.py: a mutant: SURVIVES" in output
    assert "1 of 1 mutants survive" in output and output.endswith("s)\ntoy/agent.py: a mutant\n")
    status, output = hunt("3 * x", "test_weak test_strong")
    assert status == 0 and "a mutant: dies (test_strong)" in output and "0 of 1 mutants survive" in output
    assert hunt("3 * x", "test_wrong") == (2, "the code as it is fails test_wrong\n")
    for what in (hunt("3 * x", "test_weak", old="4 * x"), hunt("2 * * x", "test_weak"), hunt("3 * x", "test_gone")):
        assert what[0] == 2 and "survive" not in what[1]
    assert (tmp_path / "toy/agent.py").read_text() == "def double(x):\n    return 2 * x\n"
