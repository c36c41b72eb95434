"""Runs made by hand against a band made by hand, and the command."""

import os
import re
import subprocess
import sys

import imageio
import numpy as np
import pytest
from conftest import ROOT

from common import compare
from common.command import UserError

BAND = compare.Band(np.arange(100.0, 1100, 100), np.add.outer(np.arange(10.0), [2, 0, 1, 3, 4]))  # t to t + 4


def run(steps, running, name="mine"):
    return compare.Run(name, np.array(steps, float), np.array(running, float), np.array(steps, float) / 100)


def table(path, steps, running, header="episode,steps,reward,running_reward,seconds"):
    """An episodes.csv as training leaves it; a reward is nothing that is looked at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[i, s, -9.0, r, s / 100] for i, (s, r) in enumerate(zip(steps, running, strict=True), 1)]
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture
def command(tmp_path):
    """Run the command in an empty folder, where importing TensorFlow fails loudly."""
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "tensorflow.py").write_text("raise SystemError('TensorFlow was imported')\n")

    def run(*flags):
        words = [sys.executable, str(ROOT / "common" / "compare.py"), *map(str, flags)]
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "sabotage")}
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


# where a run lies


def test_the_running_reward_is_that_of_the_last_episode_that_had_ended():
    mine = run([150, 300, 420], [1.0, 2.0, 3.0])
    assert mine.at(np.array([100, 149, 150, 299, 300, 419, 420, 1000])).tolist() == [1, 1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("running", "words"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "100% of 10 points, below at 0%, above at 0%; after 1,000 steps within: 9.0"),
        ([4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "100% of 10 points, below at 0%, above at 0%; after 1,000 steps within"),
        ([-1, 0, 0, 8, 8, 8, 8, 8, 8, 8.9], "50% of 10 points, below at 40%, above at 10%; after 1,000 steps below"),
        ([5, 6, 7, 8, 9, 5, 6, 7, 8, 13.1], "40% of 10 points, below at 0%, above at 60%; after 1,000 steps above"),
    ],
)
def test_the_shares_of_the_points_and_where_the_run_is_now(running, words):
    place = BAND.place(run(BAND.steps, running))
    assert place.startswith(f"mine: within the band at {words}")
    assert place.endswith("(band 9.0 to 13.0)")


def test_a_run_under_way_is_compared_as_far_as_it_has_come():
    """After 499 steps four points count; the newest episode is held against the last of them."""
    place = BAND.place(run([100, 250, 320, 499], [0, 2, 9, 3.5]))
    expected = "within the band at 50% of 4 points, below at 25%, above at 25%; after 499 steps within: 3.5"
    assert place == f"mine: {expected} (band 3.0 to 7.0)"


def test_the_guide_says_how_far_out_is_normal():
    """Each of the five seeds of a band, held against the other four."""
    within, below = [], []
    for path in sorted(ROOT.glob("*/bands/*.csv")):
        _, *seeds = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2).T
        for i, mine in enumerate(seeds if len(seeds) == 5 else []):
            others = np.delete(seeds, i, 0)
            below.append((mine < others.min(0)).mean())
            within.append(((mine >= others.min(0)) & (mine <= others.max(0))).mean())
    numbers = [f"{share:.0%}" for share in (np.median(within), min(within), max(below))]
    for page in "guide.md", "guide.zh-CN.md":
        (line,) = re.findall(
            r"^(?:How far out is normal|偏出多少算正常).*\n?.*", (ROOT / "docs" / page).read_text("utf-8"), re.M
        )
        assert re.findall(r"\d+%", line) == numbers


def test_a_run_longer_than_the_band_is_held_against_its_end():
    place = BAND.place(run([*BAND.steps, 9000], [*range(10), 14]))
    assert "100% of 10 points" in place and place.endswith("after 9,000 steps above: 14.0 (band 9.0 to 13.0)")


def test_before_the_bands_first_point_there_is_nothing_to_say():
    with pytest.raises(UserError, match=r"mine: too early to say after 99 steps \(the band begins at 100\)"):
        BAND.place(run([50, 99], [0, 0]))


# the command


@pytest.mark.parametrize("seeds, names", [(2, ["2 seeds, lowest to highest", "their median"]), (1, ["seed 0"])])
def test_a_picture_names_the_seeds_of_its_band(monkeypatch, seeds, names):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, dpi: drawn.extend(figure.axes))
    drawn = []
    compare.draw("band.png", "sac", compare.Band(np.arange(3), np.ones((3, seeds))))
    assert drawn[0].get_legend_handles_labels()[1] == names


@pytest.mark.parametrize("seconds, label, end", [(60, "seconds (mine)", 60), (1200, "minutes (mine)", 20)])
def test_the_upper_axis_is_the_first_runs_time(monkeypatch, seconds, label, end):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, dpi: drawn.append(figure))
    drawn = []
    mine = compare.Run("mine", np.array([500.0, 1000.0]), np.zeros(2), np.array([seconds / 2, seconds]))
    compare.draw("picture.png", "sac", BAND, [mine, run([100, 1000], [0, 0], "another")])
    drawn[0].draw_without_rendering()  # only now the upper axis takes its limits
    (time,) = drawn[0].axes[0].child_axes
    assert time.get_xlabel() == label and time.get_xlim() == pytest.approx((0, end))


def test_runs_are_read_compared_and_drawn_in_any_folder(command, tmp_path):
    """The first is one of the band's own seeds; of the second the very beginning is there, and far below."""
    steps, running = (np.loadtxt(ROOT / "sac/bands/Pendulum-v1.csv", delimiter=",", skiprows=1)[:, i] for i in (0, 3))
    table(tmp_path / "model/sac/Pendulum-v1/episodes.csv", steps, running)
    table(tmp_path / "model/bad/model/sac/Pendulum-v1/episodes.csv", steps[:40], running[:40] - 5000)
    result = command("sac", "--env", "Pendulum-V0", "--out", ".", "model/bad")
    assert (result.returncode, result.stderr) == (0, "")
    first, second, picture = result.stdout.splitlines()
    assert first.startswith("your run: within the band at 100% of 100 points, below at 0%, above at 0%; after 20,000")
    assert second.startswith("bad: within the band at 0% of 40 points, below at 100%, above at 0%; after 8,000 steps b")
    path = tmp_path / "image" / "sac_Pendulum-v1_compared.png"
    assert picture == f"Picture: {path.relative_to(tmp_path)}"
    both = imageio.v3.imread(path)
    assert command("sac").returncode == 0
    one = imageio.v3.imread(path)
    assert one.std() > 1 and both.shape == one.shape and (both != one).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["ppo"], "there is no model/ppo/Pendulum-v1/episodes.csv: run with --train first"),
        (["pppo"], "no band of 'pppo' (there are: a2c, a3c"),
        (["reinforce", "--env", "Pong-V0"], "reinforce has no band for Pong-v0 (shipped: Acrobot-v1, CartPole-v1)"),
        (["ppo", "--outt", "x"], "perhaps you meant --out"),
        ([], "The folder: ppo"),
    ],
)
def test_what_is_not_there_is_one_line_and_status_2(command, flags, message):
    result = command(*flags)
    assert (result.returncode, result.stdout) == (2, "")
    assert message.replace("/", os.sep) in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    ["a\nb\n", "episode,steps,reward\n1,200,-9\n", "steps,running_reward,seconds\n200,-1,1\n400,-", "s\0\xff\n"],
)
def test_a_damaged_table_is_told(tmp_path, content):
    path = tmp_path / "episodes.csv"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"episodes\.csv is damaged or no table of episodes"):
        compare.read_run(path, "mine")


def test_a_table_without_an_episode_and_a_picture_that_cannot_be_written(command, tmp_path):
    path = table(tmp_path / "model/sac/Pendulum-v1/episodes.csv", [], [])
    assert command("sac").stderr == f"error: {path.relative_to(tmp_path)} has no episode yet\n"
    table(path, [200, 400], [-1500, -1500])
    (tmp_path / "image").write_text("a file")
    result = command("sac")
    assert result.returncode == 2 and "can't write" in result.stderr and result.stderr.count("\n") == 1
