"""The exercises in the folders' READMEs: three each, in both languages, with commands that the programs accept."""

import importlib
import re
import shlex
import sys

import pytest
from conftest import ROOT

from common import command, compare

FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/main.py"))
SECTION = re.compile(r"^## (?:Things to try|动手试试)\n(.*?)(?=^## |\Z)", re.M | re.S)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_three_exercises_with_a_command_a_table_and_an_answer(folder, name, monkeypatch):
    section = SECTION.search((ROOT / folder / name).read_text(encoding="utf-8"))[1]
    exercises = re.split(r"^### \d\. ", section, flags=re.M)[1:]
    assert len(exercises) == 3
    for exercise in exercises:
        question, answer = re.fullmatch(r"(.*)<details>(.*)</details>\n*.*", exercise, re.S).groups()
        assert re.search(r"^\|---\|", question, re.M)
        assert re.fullmatch(r"<summary>\S+</summary>\n\n.{20,}", answer, re.S)
        commands = [shlex.split(line, comments=True) for line in re.findall(r"^python (.*)$", question, re.M)]
        assert commands[0][:2] == [f"{folder}/main.py", "--train"]
        for script, *flags in commands:
            if script == "common/compare.py":
                options = command.read(compare.Options, flags)
                main = importlib.import_module(f"{options.algorithm}.main")
                compare.read_band(options.algorithm, options.env or main.Config.env)
            else:
                main = importlib.import_module(script.removesuffix(".py").replace("/", "."))
                monkeypatch.setattr(sys, "argv", [script, *flags])
                command.parse(main.Config, main.PRESETS)
