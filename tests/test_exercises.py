"""The exercises in the folders' READMEs: three each, in both languages; test_readmes.py reads their commands."""

import re

import pytest
from conftest import ROOT

FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/main.py"))
SECTION = re.compile(r"^## (?:Things to try|动手试试)\n(.*?)(?=^## |\Z)", re.M | re.S)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_three_exercises_with_a_command_a_table_and_an_answer(folder, name):
    section = SECTION.search((ROOT / folder / name).read_text(encoding="utf-8"))[1]
    exercises = re.split(r"^### \d\. ", section, flags=re.M)[1:]
    assert len(exercises) == 3
    for exercise in exercises:
        question, answer = re.fullmatch(r"(.*)<details>(.*)</details>\n*.*", exercise, re.S).groups()
        assert re.search(r"^\|---\|", question, re.M)
        assert re.fullmatch(r"<summary>\S+</summary>\n\n.{20,}", answer, re.S)
        assert re.search(r"^python (.*)$", question, re.M)[1].startswith(f"{folder}/main.py --train ")
