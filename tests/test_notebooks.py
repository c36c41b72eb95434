"""The notebooks: a short run, what is committed of the long one, both languages, and the first cell on Colab."""

import base64
import importlib
import itertools
import re
import subprocess
import sys
import types
from collections import Counter

import imageio
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from nbclient.exceptions import CellExecutionError
from test_readmes import LINK, anchors, facts

from notebooks.execute import NOTEBOOKS, execute
from ppo.agent import PPO
from td3.agent import TD3, ReplayBuffer

STEPS = {"chapter5": 2500, "chapter6": 1000}  # of a short run
SCORE = {"chapter5": 475, "chapter6": -200}  # what counts as solved

CHINESE = re.compile(r"[\u4e00-\u9fff]")
NAMES = [path.stem for path in NOTEBOOKS]


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def cells(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def source(name, cell_id):
    return next(cell.source for cell in read(name).cells if cell.id == cell_id)


def printed(notebook):
    outputs = [output for cell in cells(notebook, "code") for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def pictures(cell, kind):
    """The pictures below a cell, each uint8 [frames, height, width, channels]."""
    data = [output.data[f"image/{kind}"] for output in cell.outputs if f"image/{kind}" in output.get("data", {})]
    frames = (imageio.v3.imread(base64.b64decode(text), index=..., extension=f".{kind}") for text in data)
    return [np.asarray(film) for film in frames]


def check(notebook):
    """Every cell ran, in order and without a complaint, and pictures show something; returns the kinds of outputs by
    the cell's id."""
    code = cells(notebook, "code")
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    shown = {}
    for cell in code:
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell.outputs), cell.id
        shown[cell.id] = sorted(output.get("name") or min(output.data) for output in cell.outputs)  # image/, then text/
        for curve in pictures(cell, "png"):
            assert curve.shape[1] >= 250 and curve.shape[2] >= 350 and curve.std() > 10, cell.id
        for film in pictures(cell, "gif"):
            assert len(film) >= 10 and film.shape[2] >= 250, cell.id
            assert all((a != b).any() for a, b in itertools.pairwise(film)), cell.id
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_shows_the_same_kinds_of_things_as_the_committed_one(name):
    notebook = execute(ROOT / "notebooks" / f"{name}.ipynb", STEPS[name], JIT_COMPILE="0")
    shown = check(notebook)
    assert shown == check(read(name))
    kinds = Counter(kind for outputs in shown.values() for kind in outputs)
    assert kinds["image/png"] >= 4 and kinds["image/gif"] >= 1
    runs = [int(steps.replace(",", "")) for steps in re.findall(r"after ([0-9,]+) steps", printed(notebook))]
    assert len(runs) == 2 and all(STEPS[name] <= steps < STEPS[name] + 500 for steps in runs)


def test_a_cell_that_fails_is_told_and_steps_are_replaced(tmp_path):
    path = tmp_path / "n.ipynb"
    new = nbformat.v4.new_code_cell
    notebook = nbformat.v4.new_notebook(cells=[new("STEPS = 80_000  # many"), new("print(STEPS)"), new("STEPS / 0")])
    nbformat.write(notebook, path)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(path)
    notebook.cells.pop()
    nbformat.write(notebook, path)
    assert printed(execute(path, 7)) == "7\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_run_reached_the_score_within_the_band(name):
    text = printed(read(name))
    means = [float(mean) for mean in re.findall(r"Mean of 10: (\S+)", text)]
    assert means and min(means) >= SCORE[name]
    assert int(re.search(r"mine: within the band at (\d+)%", text)[1]) >= 90


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_small_and_of_no_machine(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size < 500_000
    notebook = read(name)
    assert not re.search(r"(/tmp|/home|/root|/Users|/work|[A-Z]:\\)\b", printed(notebook))
    assert notebook.metadata.language_info == {"name": "python"} and notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        for output in cell.get("outputs", []):
            assert len(output.get("data", {}).get("image/gif", "")) < 300_000
            assert output.get("data", {}).get("text/plain", "<").startswith("<")  # no value, no path


# what one reads


@pytest.mark.parametrize("name", NAMES)
def test_each_text_is_there_in_both_languages(name):
    for cell in cells(read(name), "markdown"):
        paragraphs = [text for text in re.split(r"\n\n+", cell.source) if not text.startswith(("$$", "<!--"))]
        headings = [text for text in paragraphs if text.startswith("#")]
        for heading in headings:
            english, _, chinese = heading.partition(" · ")
            assert not CHINESE.search(english), heading
            assert CHINESE.search(chinese) or re.fullmatch("#+ [A-Z0-9]+", heading), heading
        english = [text for text in paragraphs if text not in headings and not CHINESE.search(text)]
        chinese = [text for text in paragraphs if text not in headings and CHINESE.search(text)]
        assert len(english) == len(chinese) > 0, cell.id
        for mine, theirs in zip(english, chinese, strict=True):
            assert mine.count("\n- ") == theirs.count("\n- "), cell.id
            assert facts(mine) == facts(theirs), cell.id
            assert Counter(re.findall(r"\$.*?\$", mine)) == Counter(re.findall(r"\$.*?\$", theirs)), cell.id


@pytest.mark.parametrize("name", NAMES)
def test_formulas_are_the_sites_and_links_lead_somewhere(name):
    tomllib = importlib.import_module("tomllib" if importlib.util.find_spec("tomllib") else "tomli")
    formulas = tomllib.loads((ROOT / "docs/site/formulas.toml").read_text(encoding="utf-8"))
    text = "\n".join(cell.source for cell in cells(read(name), "markdown"))
    found = re.findall(r"^\$\$(.*) \\tag\{(.*)\}\$\$$", text, re.M)
    assert len(found) >= 3 and len(found) == text.count("$$") / 2
    for formula, number in found:
        assert re.sub(r"[{}]", "", formula) == re.sub(r"\\fix|[{}]", "", formulas[number]), number
    for _, target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        page = (ROOT / "notebooks" / path).resolve()
        assert page.exists() and (not anchor or anchor in anchors(page)), target


# what one may change


def test_ppos_objective_in_the_notebook_is_the_folders():
    """One step of each from the same weights, on ratios within and beyond the clip."""
    scope = {"PPO": PPO, "tf": tf}
    exec(source("chapter5", "ppo-class"), scope)
    rng = np.random.default_rng(0)
    state, adv = rng.normal(size=(64, 3)).astype(np.float32), rng.normal(size=64).astype(np.float32)
    action, old = (rng.normal(size=(64, 2)).astype(np.float32) for _ in range(2))
    results = []
    for agent in (PPO(3, 2, np.ones(2, np.float32)), scope["MyPPO"](3, 2, np.ones(2, np.float32))):
        old_pi = agent.distribution(0.3 * old, agent.log_std)
        for _ in range(3):
            loss = agent.train_actor(state, action, adv, old_pi)
        results.append([float(loss), *(w.numpy() for w in agent.actor_weights)])
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_td3s_target_in_the_notebook_is_the_folders():
    scope = {"TD3": TD3, "tf": tf}
    exec(source("chapter6", "td3-class"), scope)
    rng = np.random.default_rng(0)
    reward, next_state, noise = (rng.normal(size=(64, n)).astype(np.float32) for n in (1, 3, 2))
    done = (rng.random((64, 1)) < 0.5).astype(np.float32)
    values = [
        agent(3, 2, ReplayBuffer(10), 8, np.ones(2, np.float32)).target_q(reward, next_state, done, 0.2, 0.9, noise)
        for agent in (TD3, scope["MyTD3"])
    ]
    np.testing.assert_array_equal(*values)


# Colab


@pytest.mark.parametrize("name", NAMES)
def test_on_colab_the_first_cell_clones_and_installs_once(name, tmp_path, monkeypatch):
    asked, ran, restarts = [], [], []
    kernel = types.SimpleNamespace(do_shutdown=lambda restart: restarts.append(restart))

    def run(words, check):
        ran.append(words)
        if words[0] == "git":
            (tmp_path / words[-1] / "ppo").mkdir(parents=True)
        elif len(ran) == 2:
            raise KeyboardInterrupt  # the first installation is interrupted

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "https://example.org/it")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", [*sys.path])
    first = cells(read(name), "code")[0].source
    with pytest.raises(KeyboardInterrupt):
        exec(first)
    for _ in range(2):  # before and after the restart
        exec(first, {"get_ipython": lambda: types.SimpleNamespace(kernel=kernel)})
        assert sys.path[0] == str(tmp_path / "repository")
    assert len(asked) == 1 and restarts == [True]
    clone, install, again = ran
    assert again == install
    assert clone == ["git", "clone", "--depth", "1", "https://example.org/it", "repository"]
    assert install[:4] == [sys.executable, "-m", "pip", "install"] and install[-1] == "repository/requirements.txt"


@pytest.mark.parametrize("folder", ["notebooks", ".", "docs/site"])
def test_elsewhere_the_first_cell_finds_the_repository_and_does_nothing_else(folder, monkeypatch):
    monkeypatch.chdir(ROOT / folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(cells(read("chapter5"), "code")[0].source, {})
    assert sys.path[0] == str(ROOT)


def test_a_notebook_without_the_repository_says_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="Open it in the folder notebooks/ of the repository"):
        exec(cells(read("chapter6"), "code")[0].source, {})
