"""updates.csv: what updates report, from the loops to the table, to TensorBoard and through --resume."""

import csv
import importlib
import math
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import ALGORITHMS, ROOT

from common import checkpoint
from common.command import Options, UserError
from common.progress import Training


def training(out, **settings):
    config = Options(train=True, env="CartPole-v1", steps=99, out=out, **settings)
    return Training(config, types.SimpleNamespace(save=lambda *_: None))


def text(out):
    return next(out.glob("model/*/*/updates.csv")).read_text()


def test_a_row_is_the_mean_of_all_updates_since_the_row_before(tmp_path):
    with training(tmp_path) as run:
        run.log(1.0, 5)  # no update yet
        run.log_update({"loss": 1.0, "kl": 4.0})
        run.log_update({"loss": 2.0}, {"loss": 6.0, "kl": 5.0})
        run.log(1.0, 7)
        run.save()
        assert text(tmp_path) == "steps,loss,kl\n12,3.0,4.5\n"  # whoever kills the run now finds this
        run.log(1.0, 3)  # and no update since
        run.log_update({"loss": 8.0})
        run.log(1.0, 2)
    assert text(tmp_path) == "steps,loss,kl\n12,3.0,4.5\n17,8.0,nan\n"


def test_a_run_without_updates_leaves_an_empty_table(tmp_path):
    with training(tmp_path) as run:
        run.log(1.0, 5)
    assert text(tmp_path) == "steps\n"


def test_resume_goes_on_from_the_checkpoint_whatever_the_file_says(tmp_path):
    with training(tmp_path) as run:
        run.log_update({"loss": 1 / 3})
        run.log(1.0, 5)
        run.log_update({"loss": 2.0})  # its row is not due yet
    file = next(tmp_path.glob("model/*/*/updates.csv"))
    file.write_text(file.read_text() + "77,7.0\n")  # later than the checkpoint
    with training(tmp_path, resume=True) as run:
        run.log_update({"loss": 4.0})
        run.log(1.0, 5)
    assert text(tmp_path) == f"steps,loss\n5,{1 / 3}\n10,3.0\n"


def test_a_run_from_before_there_was_this_table_is_resumed(tmp_path):
    with training(tmp_path) as run:
        run.log(1.0, 5)
    checkpoint.save(run.folder / "resume.npz", rows=np.array(run.rows))
    with training(tmp_path, resume=True) as run:
        run.log_update({"loss": 4.0})
        run.log(1.0, 5)
    assert text(tmp_path) == "steps,loss\n10,4.0\n"


def test_the_board_gets_a_rows_numbers_with_the_episodes(tmp_path):
    seen = []
    with training(tmp_path) as run:
        run.board = lambda step, **values: seen.append((step, values))
        run.log_update({"loss": 1.0, "kl": 4.0}, {"loss": 2.0})
        run.log(7.0, 5)
        run.log(7.0, 5)
    episode = dict(reward=7.0, running_reward=7.0)
    assert seen == [(5, episode | dict(loss=1.5, kl=4.0)), (10, episode)]


def test_tensorboards_file_holds_the_names(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with training(tmp_path, logdir=tmp_path / "board") as run:
        run.log_update({"loss": 1.5})
        run.log(7.0, 5)
    (file,) = (tmp_path / "board").iterdir()
    events = EventAccumulator(str(file))
    events.Reload()
    assert set(events.Tags()["tensors"]) == {"reward", "running_reward", "loss"}
    (event,) = events.Tensors("loss")
    assert (event.step, tf.make_ndarray(event.tensor_proto)) == (5, 1.5)


def test_a_logdir_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "board").touch()
    with pytest.raises(UserError, match="--logdir: can't write to"):
        training(tmp_path, logdir=tmp_path / "board")


def test_without_tensorboard_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="--logdir needs TensorBoard: pip install tensorboard"):
        training(tmp_path, logdir=tmp_path / "board")
    assert not (tmp_path / "board").exists()


OFF_POLICY = ["--start-steps", "250", "--batch-size", "16"]
CARTPOLE = ["--env", "CartPole-v1"]
FLAGS = {
    "reinforce": ["--batch-size", "2", "--baseline", "value"],
    "ac": [],
    "a2c": ["--workers", "2"],
    "a3c": [*CARTPOLE, "--workers", "1"],
    "trpo": [*CARTPOLE, "--batch-size", "64"],
    "ppo": [*CARTPOLE, "--batch-size", "64", "--method", "penalty"],
    "acktr": ["--workers", "2"],
    "ddpg": OFF_POLICY,
    "td3": OFF_POLICY,
    "sac": OFF_POLICY,
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_folder_leaves_its_table_and_resume_goes_on_with_it(algorithm, tmp_path, monkeypatch):
    """The columns are those that its READMEs name; a row belongs to an episode's end."""
    main = importlib.import_module(f"{algorithm}.main")

    def run(name, episodes, *more):
        words = ["--train", "--steps", "100000", "--episodes", str(episodes), "--out", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", ["main.py", *words, *FLAGS[algorithm], *more])
        main.main()

    half, all_of_them = (2, 4) if FLAGS[algorithm] is OFF_POLICY else (5, 9)
    run("whole", all_of_them)
    run("halves", half)
    part = text(tmp_path / "halves")
    run("halves", all_of_them, "--resume")
    whole = text(tmp_path / "whole")
    assert text(tmp_path / "halves").startswith(part) and len(part) > len(whole.splitlines()[0]) + 10
    if algorithm != "a3c":  # whose workers begin a new episode
        assert text(tmp_path / "halves") == whole

    episodes = next(tmp_path.glob("whole/model/*/*/episodes.csv"))
    ends = {row["steps"] for row in csv.DictReader(episodes.read_text().splitlines())}
    rows = list(csv.DictReader(whole.splitlines()))
    steps = [row["steps"] for row in rows]
    assert set(steps) <= ends and sorted(set(steps), key=int) == steps
    assert all(math.isfinite(float(number)) for row in rows for number in row.values())
    for page in ("README.md", "README.zh-CN.md"):
        paragraphs = (ROOT / algorithm / page).read_text("utf-8").split("\n\n")
        (line,) = (x for x in paragraphs if x.startswith("`updates.csv`"))
        assert [name for name in rows[0] if name != "steps" and f"`{name}`" not in line] == []
