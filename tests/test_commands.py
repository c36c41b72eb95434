"""The commands as a user runs them: files left behind, messages, exit statuses."""

import contextlib
import csv
import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import h5py
import imageio
import numpy as np
import pytest
from conftest import ALGORITHMS, ROOT

from common import command as cli
from common.players import Path

BAD_INPUT = [
    ([], "--train, --test or both"),
    (["--trian"], "perhaps you meant --train"),
    (["--train", "--gamma", "1.5"], "--gamma must be between 0 and 1, not 1.5"),
    (["--train", "--gamma", "big"], "--gamma"),
    (["--train", "--seed", "-1"], "--seed must be at least 0"),
    (["--train", "--env", "Nonsense-v0"], "no environment 'Nonsense-v0'"),
    (["--train", "--env", "Pendulm-v1"], "Pendulum-v1"),
    (["--train", "--env", "nosuch:X-v0"], "No module named 'nosuch'"),
    (["--train", "--env", "a:b:c"], "No module named 'a:b'"),
    (["--train", "--env", ":CartPole-v1"], "--env :CartPole-v1: Empty module name"),
    (["--train", "--env", "..:X-v0"], "--env ..:X-v0: "),
    (["--train", "--env", "FrozenLake-v1"], "observations must be vectors"),
    (["--train", "--steps", "None"], "needs an end"),
    (["--train", "--episodes", "9", "--end-lr", "0.5"], "give --steps a number"),
    (["--train", "--episodes", "9", "--end_lr=0.5"], "give --steps a number"),
    (["--test", "--record", "film.txt"], ".gif or .mp4"),
    (["--train", "--record", "film.gif"], "give --test too"),
    (["--test", "--resume"], "give --train too"),
    (["--train", "--render"], "no display"),
]


@pytest.fixture
def no_tensorflow(tmp_path):
    """A module path on which importing TensorFlow fails loudly."""
    folder = tmp_path / "sabotage"
    folder.mkdir()
    (folder / "tensorflow.py").write_text("raise SystemError('TensorFlow was imported')\n")
    return str(folder)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_help_names_every_hyperparameter_without_tensorflow(command, no_tensorflow, algorithm):
    result = command(algorithm, "--help", PYTHONPATH=no_tensorflow)
    assert result.returncode == 0, result.stderr
    config = importlib.import_module(f"{algorithm}.main").Config
    for field in dataclasses.fields(config):
        assert re.search(rf"--{field.name.replace('_', '-')}(?![\w-])", result.stdout), field.name


@pytest.mark.parametrize(
    "flags, message", BAD_INPUT, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_status_2(command, no_tensorflow, tmp_path, flags, message):
    result = command("ppo", *flags, PYTHONPATH=no_tensorflow)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_wrong_flag_is_one_line_on_a_terminal_too():
    """There the message comes in a coloured box."""
    master, slave = os.openpty()
    words = [sys.executable, ROOT / "ppo/main.py", "--train", "--batch", "3"]
    process = subprocess.run(words, stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm-256color"})
    os.close(slave)
    assert process.returncode == 2
    expected = b"error: Unrecognized options: --batch, 3 (perhaps you meant --batch-size); --help lists the flags\r\n"
    assert os.read(master, 10_000) == expected


def test_batch_normalisation_has_a_layer_to_normalise(command):
    result = command("ddpg", "--train", "--batch-norm", "--hidden")
    assert (result.returncode, result.stderr) == (2, "error: --batch-norm needs a hidden layer\n")


@pytest.mark.parametrize("algorithm", ["reinforce", "ac", "a2c", "a3c", "trpo", "ppo", "acktr"])
def test_the_books_cartpole_has_the_settings_of_todays(monkeypatch, algorithm):
    """But for the number that says when it is solved."""
    main = importlib.import_module(f"{algorithm}.main")
    settings = []
    for env_id in ("CartPole-V0", "CartPole-v1"):
        monkeypatch.setattr(sys, "argv", ["main.py", "--train", "--env", env_id])
        settings.append(cli.parse(main.Config, main.PRESETS).run_settings())
    assert [each.pop("env") for each in settings] == ["CartPole-v0", "CartPole-v1"]
    assert [each.pop("solved", None) for each in settings] in ([None, None], [195, 495], [195, 475])
    assert settings[0] == settings[1]


def test_unknown_method_names_the_choices(command):
    result = command("ppo", "--train", "--method", "kl")
    assert result.returncode == 2
    assert "clip" in result.stderr and "penalty" in result.stderr and result.stderr.count("\n") == 1


def test_out_that_cannot_be_written(here, tmp_path):
    (tmp_path / "taken").write_text("a file")
    result = here("ppo", "--train", "--out", "taken")
    assert result.returncode == 2
    assert "can't write" in result.stderr and result.stderr.count("\n") == 1
    assert (tmp_path / "taken").read_text() == "a file"


def test_train_then_test_in_another_folder(command, tmp_path):
    result = command(
        "ppo", "--train", "--test", "--env", "Pendulum-V0", "--episodes", 12, "--batch-size", 400, "--hdf5"
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no word of TensorFlow, gym or SDL
    lines = result.stdout.splitlines()
    assert lines[0] == "Pendulum-V0 of the book is Pendulum-v1 today."
    assert re.fullmatch(
        r"Training \| Episode: 1/12 \| Episode Reward: -\d+\.\d{4} \| Running Time: \d+\.\d{4}", lines[1]
    )
    words = ("Training |", "Running reward", "Weights", "To watch it play:", "Testing", "There is no display")
    assert all(line.startswith(words) for line in lines[1:])
    said = next(line for line in lines if line.startswith("Running reward"))
    assert re.fullmatch(r"Running reward -\d+\.\d after 12 episodes, 2,400 steps, \d+\.\d s", said)
    assert any(line.startswith("Testing with your own weights") for line in lines)
    pattern = r"^Testing \| Episode: \d+/10 \| Episode Reward: (-\d+\.\d+)"
    played = [float(reward) for reward in re.findall(pattern, result.stdout, re.M)]
    mean, deviation = np.mean(played), np.std(played)
    assert len(played) == 10 and lines[-1] == f"Testing | Mean of 10: {mean:.1f} | Standard deviation: {deviation:.1f}"

    model = tmp_path / "model/ppo/Pendulum-v1"
    with h5py.File(model / "actor.hdf5") as file:
        assert file["log_std"].shape == (1,)
    config = json.loads((model / "config.json").read_text())
    assert (config["batch_size"], config["seed"]) == (400, 0)
    with open(model / "episodes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["steps"]) for row in rows] == [200 * (i + 1) for i in range(12)]
    rewards, running = ([float(row[key]) for row in rows] for key in ("reward", "running_reward"))
    assert running[0] == rewards[0] and running[1] == pytest.approx(0.9 * rewards[0] + 0.1 * rewards[1])
    assert imageio.v3.imread(tmp_path / "image/ppo_Pendulum-v1.png").std() > 1
    assert len(imageio.v3.imread(tmp_path / "image/ppo_Pendulum-v1.gif", index=None)) > 50


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_shipped_weights_play(command, here, tmp_path, algorithm):
    """--test on a fresh clone, and a film by --record."""
    run = command if algorithm == "td3" else here  # one as a user runs it
    result = run(algorithm, "--test", "--test-episodes", 2, "--record", "film.mp4")
    assert result.returncode == 0, result.stderr
    assert "the shipped weights" in result.stdout
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    assert not (tmp_path / "model").exists()


def test_damaged_weights_and_weights_of_another_size(here, tmp_path):
    pretrained = ROOT / "ppo/pretrained/Pendulum-v1"
    model = tmp_path / "model/ppo/Pendulum-v1"
    model.mkdir(parents=True)
    half = (pretrained / "actor.npz").read_bytes()
    half = half[: len(half) // 2]
    (model / "actor.npz").write_bytes(half)
    (model / "critic.npz").write_bytes((pretrained / "critic.npz").read_bytes())
    result = here("ppo", "--test")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "damaged" in result.stderr
    assert (model / "actor.npz").read_bytes() == half

    (model / "actor.npz").write_bytes((pretrained / "actor.npz").read_bytes())
    result = here("ppo", "--test", "--hidden", 32)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "another network" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_ctrl_c_saves_and_exits_130_and_resume_goes_on(here, tmp_path):
    given = ["--test", "--steps", "100000000", "--record", "film.gif"]
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "ppo/main.py"), "--train", *given],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=1200)
    assert process.returncode == 130, stderr
    assert "Weights and episodes.csv: model" in stdout
    again = shlex.split(stdout.splitlines()[-1].removeprefix("To go on: "))
    assert again[1:] == [str(ROOT / "ppo/main.py"), "--train", "--resume", *given]
    model = tmp_path / "model/ppo/Pendulum-v1"
    assert np.load(model / "actor.npz")["log_std"].shape == (1,)
    played = len((model / "episodes.csv").read_text().splitlines()) - 1
    assert played >= 20

    (model / "episodes.csv").unlink()  # it is there for the reader; the run is in resume.npz
    result = here("ppo", "--train", "--resume", "--steps", 200 * (played + 3))
    assert result.returncode == 0, result.stderr
    assert len((model / "episodes.csv").read_text().splitlines()) - 1 == played + 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_the_line_on_a_terminal_of_80_columns_shows_result_and_time(tmp_path):
    """What comes next is a command that can be typed."""
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = [sys.executable, ROOT / "reinforce/main.py", "--train", "--episodes", "40", "--seed", "5"]
    process = subprocess.Popen(words, stdout=slave, stderr=slave, cwd=tmp_path)
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # Linux says so when the other end is closed
        while part := os.read(master, 10_000):
            written += part
    assert process.wait() == 0
    lines = re.split(r"[\r\n]+", written.decode())
    assert "Loading TensorFlow ..." in lines[0]
    bars = [line for line in lines if line.startswith("Episode ")]
    expected = r"Episode 40: \d+\.\d, running \d+\.\d \|.*\| 100%, 00:00 left, [\d,]+ steps/s"
    assert re.match(expected, bars[-1]) and max(map(len, bars)) <= 80
    (watch,) = (line for line in lines if line.startswith("To watch it play: "))
    result = subprocess.run(shlex.split(watch.removeprefix("To watch it play: ")), cwd=tmp_path, capture_output=True)
    assert result.returncode == 0 and b"Testing with your own weights" in result.stdout


@pytest.mark.parametrize("encoding", ("cp936", "cp1252"))
def test_a_wrong_flag_is_explained_in_the_encodings_of_windows(command, no_tensorflow, encoding):
    """tyro draws its box in ASCII there, which begins with a rule."""
    result = command("ppo", "--train", "--gamma", "big", PYTHONPATH=no_tensorflow, PYTHONIOENCODING=encoding)
    assert result.returncode == 2 and result.stderr.startswith("error: Error parsing --gamma")


def test_letters_that_the_output_cannot_hold_are_printed_as_numbers(monkeypatch):
    """The name of a user's folder, say, in an output that goes to a file."""
    output = io.TextIOWrapper(io.BytesIO(), "cp1252", newline="")
    monkeypatch.setattr("sys.stdout", output)
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: print("/home/\u5f20", flush=True))
    assert (stop.value.code, output.buffer.getvalue()) == (0, b"/home/\\u5f20\n")


def test_a_python_without_the_packages_says_what_to_do():
    """-S: the packages of the environment are not found, as with a system's own Python."""
    result = subprocess.run([sys.executable, "-S", ROOT / "ppo/main.py", "--train"], capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    activate = r".venv\Scripts\activate" if sys.platform == "win32" else "source .venv/bin/activate"
    assert "has no tyro" in result.stderr and result.stderr.endswith(f", then '{activate}'\n")


def test_without_weights_the_shipped_ones_are_listed(command):
    result = command("ppo", "--test", "--env", "MountainCar-v0")
    assert result.returncode == 2
    shipped = (
        "Acrobot-v1, Ant-v4, AntBulletEnv-v0, BipedalWalker-v3, CartPole-v1, HalfCheetah-v4, HalfCheetahBulletEnv-v0, "
        "LunarLander-v2, LunarLanderContinuous-v2, Pendulum-v1, Pong-v0, PongPresent-v0"
    )
    assert f"run with --train first (shipped: {shipped})" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_does_not_fit_into_memory_is_one_line(command):
    flags = ["--start-steps", "10", "--update-every", "10", "--batch-size", "1000000000000"]
    result = command("sac", "--train", "--episodes", "1", *flags)
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is not enough memory: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_agent_is_told_how_long_training_is(algorithm, main_with, monkeypatch):
    """Otherwise learning rates do not fall."""
    agents = []
    monkeypatch.setattr(f"{algorithm}.main.train", lambda config, agent, *rest: agents.append(agent))
    main_with(algorithm, "--train", "--steps", 80)
    assert agents[0].total_steps == 80


@pytest.mark.parametrize("algorithm", ["reinforce", "trpo", "ppo"])
@pytest.mark.parametrize("workers", [0, 1])
def test_with_workers_others_play(algorithm, workers, main_with, monkeypatch):
    called = []
    for name in "train", "train_side_by_side":
        monkeypatch.setattr(f"{algorithm}.main.{name}", lambda *_, name=name: called.append(name))
    main_with(algorithm, "--train", "--workers", workers)
    assert called == ["train_side_by_side" if workers else "train"]


@pytest.mark.parametrize("algorithm", ["reinforce", "ac"])
def test_continuous_actions_are_refused(algorithm, main_with):
    with pytest.raises(cli.UserError, match="Pendulum-v1 has continuous actions, and this algorithm needs discrete"):
        main_with(algorithm, "--train", "--env", "Pendulum-v1")


SOLVED = [("reinforce", "--batch-size", 2), ("reinforce", "--batch-size", 2, "--workers", 1), ("ac",)]


@pytest.mark.parametrize("flags", SOLVED)
def test_training_stops_when_solved(flags, main_with, tmp_path):
    """A random policy's first episodes of CartPole have between 8 and 200 steps."""
    main_with(*flags, "--train", "--solved", 1, "--steps", 5000)
    rows = (tmp_path / "model" / flags[0] / "CartPole-v1/episodes.csv").read_text().splitlines()[1:]
    assert len(rows) == (2 if flags[-1] == 1 else 1)  # a batch, or an episode


@pytest.mark.parametrize(
    "algorithm, flags, settings",
    [
        ("reinforce", ["--batch-size", 3, "--workers", 1], dict(best_of=3, running=0.5)),
        ("reinforce", ["--batch-size", 3], dict(running=0.5)),
        ("a2c", [], dict(running=0.5)),
        ("ppo", [], dict(running=0.5)),
        ("ppo", ["--workers", 1], dict(running=0.5)),
    ],
)
def test_training_runs_as_the_flags_say(algorithm, flags, settings, main_with, monkeypatch):
    class Stop(Exception):
        pass

    def training(*_, **arguments):
        arguments.pop("worker", None)  # a2c's
        assert arguments == settings
        raise Stop

    monkeypatch.setattr("common.progress.Training", training)
    with pytest.raises(Stop):
        main_with(algorithm, "--train", *flags, "--running", 0.5)


SAMPLED = [(name, ["--sampled"]) for name in ("reinforce", "a2c", "a3c", "ppo")]


@pytest.mark.parametrize(
    "algorithm, sampled", [*SAMPLED, *((name, []) for name in (*dict(SAMPLED), "ac", "acktr", "trpo"))]
)
def test_a_test_is_greedy_or_sampled(algorithm, sampled, main_with, monkeypatch):
    policies = []
    monkeypatch.setattr("common.playing.play", lambda config, policy: policies.append(policy))
    main_with(algorithm, "--test", "--env", "CartPole-v1", *sampled)
    states = np.random.default_rng(0).uniform(-0.2, 0.2, (50, 4)).astype(np.float32)
    assert any(len({int(policies[0](state)) for _ in range(20)}) == 2 for state in states) == bool(sampled)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_that_is_to_be_shown_needs_a_display(algorithm, main_with, monkeypatch):
    monkeypatch.setattr("common.environments.has_display", lambda: False)
    monkeypatch.setattr(f"{algorithm}.main.train", lambda *_: None)
    with pytest.raises(cli.UserError, match="there is no display"):
        main_with(algorithm, "--train", "--render", "--steps", 9)


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_the_memory_is_as_large_as_the_flag_says(algorithm, main_with, monkeypatch):
    agents = []
    monkeypatch.setattr(f"{algorithm}.main.train", lambda config, agent, env: agents.append(agent))
    main_with(algorithm, "--train", "--replay-buffer-size", 77)
    assert agents[0].replay_buffer.capacity == 77


class Tables:
    """In place of the players' processes: two paths of two steps a call."""

    def __init__(self, env_id, seeds, count):
        self.made.append((seeds, count))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def play(self, policy, steps, std):
        self.stds.append(np.array(std))
        states, actions = np.ones((3, 3), np.float32), [np.float32([0.5]), np.float32([-0.5])]
        for reward in 1.0, -1.0:
            yield Path(states[:2], actions, [reward, 0.0], states[2], False, (reward, 2))


@pytest.mark.parametrize("algorithm", ["trpo", "ppo"])
def test_players_get_the_present_deviation_and_a_resumed_run_begins_new_games(algorithm, main_with, monkeypatch):
    monkeypatch.setattr(Tables, "made", [], raising=False)
    monkeypatch.setattr(Tables, "stds", [], raising=False)
    monkeypatch.setattr("common.players.Tables", Tables)
    cls, deviations = getattr(importlib.import_module(f"{algorithm}.agent"), algorithm.upper()), []
    update = cls.update

    def watched(agent):
        deviations.append(np.exp(agent.log_std.numpy()))
        return update(agent)

    monkeypatch.setattr(cls, "update", watched)
    flags = ["--train", "--workers", 2, "--environments", 2, "--batch-size", 4, "--hidden", 4]
    main_with(algorithm, *flags, "--steps", 12)
    np.testing.assert_allclose(Tables.stds, deviations, rtol=1e-6)
    assert len(deviations) == 3 and len(np.unique(deviations)) == 3
    main_with(algorithm, *flags, "--steps", 16, "--resume")
    (first, count), (second, _) = Tables.made
    assert count == 2 and len(first) == len(second) == 2 and len({*first, *second}) == 4


def test_resume_without_a_run_says_so(here):
    result = here("ppo", "--train", "--resume")
    assert result.returncode == 2 and "no training run to resume" in result.stderr and result.stderr.count("\n") == 1


def test_nan_stops_the_run_and_keeps_the_weights(here, tmp_path):
    shutil.copytree(ROOT / "ppo/pretrained/Pendulum-v1", tmp_path / "model/ppo/Pendulum-v1")
    before = (tmp_path / "model/ppo/Pendulum-v1/actor.npz").read_bytes()
    result = here("ppo", "--train", "--steps", 2000, "--batch-size", 400, "--lr-a", 1e30)
    assert result.returncode == 1
    kept = r"the weights of an earlier run are still in \S+"
    assert re.fullmatch(rf"error: the loss is nan at step \d+; {kept}\n", result.stderr)
    assert (tmp_path / "model/ppo/Pendulum-v1/actor.npz").read_bytes() == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_actor_of_nan_is_never_saved(monkeypatch, tmp_path, algorithm):
    """Where only the critic's loss was looked at, such a run ended well and wrote its weights over good ones."""
    main = importlib.import_module(f"{algorithm}.main")
    names = {field.name for field in dataclasses.fields(main.Config)}
    flags = ("lr_a", "policy_lr", "learning_rate", "lr_c", "reward_scale")  # trpo's actor has no rate, acktr has none
    flag = next(name for name in flags if name in names)
    good = ROOT / algorithm / "pretrained" / main.Config().env
    model = tmp_path / "model" / algorithm / good.name
    shutil.copytree(good, model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    words = ["--train", "--env", good.name, "--steps", "4500", f"--{flag.replace('_', '-')}", "1e38"]
    monkeypatch.setattr(sys, "argv", ["main.py", *words, "--out", str(tmp_path)])
    with pytest.raises(FloatingPointError, match=r"at step \d+; the weights of an earlier run are still in"):
        main.main()
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_render_is_for_training_and_for_what_this_process_plays(command, here):
    for algorithm, flags in ("a3c", ["--ray"]), ("reinforce", ["--env", "Pong-v0", "--workers", 2]):
        result = command(algorithm, "--train", "--render", *flags)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert "--render shows what this process plays" in result.stderr
    assert "There is no display here" in here("ppo", "--test", "--render", "--test-episodes", 1).stdout


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_defaults_of_command_and_class_agree(algorithm):
    config = importlib.import_module(f"{algorithm}.main").Config()
    agent = importlib.import_module(f"{algorithm}.agent")
    own = [cls for cls in vars(agent).values() if inspect.isclass(cls) and cls.__module__ == agent.__name__]
    compared = 0
    for cls in own:
        parameters = inspect.signature(cls).parameters
        if "seed" not in parameters:  # a part that gets its values from the class, such as the book's GAE_Buffer
            continue
        for name, parameter in parameters.items():
            if parameter.default is not parameter.empty and hasattr(config, name):
                assert parameter.default == getattr(config, name), f"{cls.__name__}({name})"
                compared += 1
    assert compared > 3


def test_flag_values_are_found_in_both_spellings():
    assert cli._value_of("--env", ["--train", "--env", "A-v0", "--seed", "1"]) == "A-v0"
    assert cli._value_of("--env", ["--env=A-v0", "--env", "B-v0"]) == "B-v0"
    assert cli._value_of("--env", ["--env"]) == ""
    assert cli._value_of("--end-lr", ["--end_lr", "0.5", "--steps", "9"]) == "0.5"


def test_learning_rates_that_stay_need_no_number_of_steps(monkeypatch):
    from ppo.main import PRESETS, Config

    monkeypatch.setattr(sys, "argv", ["main.py", "--train", "--episodes", "9", "--end-lr", "1"])
    assert cli.parse(Config, PRESETS).end_lr == 1


@pytest.mark.parametrize(
    "flags, expected",
    [
        ([], (None, 100)),
        (["--steps", "7"], (7, None)),
        (["--episodes", "7"], (None, 7)),
        (["--steps=7", "--episodes=8"], (7, 8)),
    ],
)
def test_a_limit_given_replaces_the_default_one(monkeypatch, flags, expected):
    from ddpg.main import PRESETS, Config

    monkeypatch.setattr(sys, "argv", ["main.py", "--train", *flags])
    config = cli.parse(Config, PRESETS)
    assert (config.steps, config.episodes) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_second_ctrl_c_stops_at_once(tmp_path):
    """An environment that never ends its episode would hold the first one up for ever; a slow one, so that there is
    no update yet: TensorFlow may swallow what is raised while it traces."""
    script = (
        "import sys, time, gym; sys.argv = ['main.py', '--train', '--env', 'Endless-v0']\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "from conftest import Constant\n"
        "class Endless(Constant):\n"
        "    def step(self, action):\n"
        "        open('steps', 'w').close()\n"
        "        time.sleep(0.1)\n"
        "        return super().step(action)\n"
        "gym.register('Endless-v0', entry_point=Endless)\n"
        "from ppo import main; from common import command\n"
        "command.run(main.main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "steps").exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert any("Ctrl-C again stops at once" in line for line in process.stderr)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=1200)
    assert process.returncode == 130
    assert (tmp_path / "model/ppo/Endless-v0/actor.npz").exists()
