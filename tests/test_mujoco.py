"""MuJoCo's and PyBullet's environments: rewards by arithmetic, seeds, replay, what falls, films, presets, messages."""

import importlib
import importlib.util
import itertools
import os
import pathlib
import signal
import subprocess
import sys

import gym
import imageio
import numpy as np
import pytest
from conftest import ROOT

from common import checkpoint, command, environments, playing
from common.command import Options, UserError
from common.environments import BULLET, MUJOCO, Replayable

CONTINUOUS = ["a2c", "acktr", "ddpg", "ppo", "sac", "td3", "trpo"]
here = importlib.util.find_spec
mujoco = pytest.mark.skipif(not (here("mujoco") and here("gymnasium")), reason="needs requirements/mujoco.txt")
bullet = pytest.mark.skipif(not here("pybullet"), reason="needs requirements/bullet.txt")


def case(env_id, *values):
    """Of a parametrized test: left out where the simulator is not installed."""
    return pytest.param(env_id, *values, marks=bullet if env_id in BULLET else mujoco)


BOTH = [case(env_id) for env_id in ("HalfCheetah-v4", "Ant-v4", "Ant-v4-no-unhealthy", *BULLET)]


def spin(env, steps, seed=0):
    """States and rewards of random actions, some of them out of bounds; with the first states of new episodes."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(steps):
        state, reward, terminated, truncated, _ = env.step(rng.uniform(-1.5, 1.5, env.action_space.shape))
        rows.append([*state, reward])
        if terminated or truncated:
            rows.append([*env.reset()[0], terminated])
    return np.array(rows)


# what they are


@mujoco
def test_a_model_is_read_from_a_folder_of_any_name(tmp_path):
    from common.mujoco import gymnasium, read_model

    file = pathlib.Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml"
    elsewhere = tmp_path / "\u5f20\u4e09" / "ant.xml"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(file.read_bytes())
    plain, there = (read_model(str(path), lambda path: path.encode("ascii")) for path in (file, elsewhere))
    assert plain == str(file).encode() and (there.nq, there.nu, there.nbody) == (15, 8, 14)


@pytest.mark.parametrize(
    "env_id, dimensions",
    [
        case("HalfCheetah-v4", (17, 6)),
        case("HalfCheetah-v5", (17, 6)),
        case("Ant-v4", (27, 8)),
        case("Ant-v5", (105, 8)),
        case("Hopper-v4", (11, 3)),
        case("HalfCheetahBulletEnv-v0", (26, 6)),
        case("AntBulletEnv-v0", (28, 8)),
    ],
)
def test_dimensions(env_id, dimensions, capfd):
    env = environments.make(env_id, 0)
    assert environments.dimensions(env)[:2] == dimensions
    np.testing.assert_array_equal(environments.dimensions(env)[2], np.ones(dimensions[1], np.float32))
    state, _ = env.reset()
    assert state.shape == dimensions[:1] and env.spec.id == env_id
    assert capfd.readouterr() == ("", "")  # no word of a v5, nor of when PyBullet was built


@mujoco
def test_the_cheetahs_reward_is_its_speed_less_a_tenth_of_the_squared_action():
    """At actions out of bounds, of what is inside them."""
    env = environments.make("HalfCheetah-v4", 0)
    env.reset()
    for action in np.random.default_rng(1).uniform(-2, 2, (20, 6)):
        before = env.unwrapped.data.qpos[0]
        _, reward, terminated, _, _ = env.step(action)
        speed = (env.unwrapped.data.qpos[0] - before) / 0.05
        assert reward == pytest.approx(speed - 0.1 * np.sum(np.clip(action, -1, 1) ** 2)) and not terminated


@mujoco
def test_the_ants_reward_is_its_speed_and_one_for_being_well_less_half_the_squared_action():
    env = environments.make("Ant-v4", 0)
    env.reset()
    for action in np.random.default_rng(1).uniform(-1, 1, (10, 8)):
        before = env.unwrapped.data.body("torso").xpos[0].copy()
        _, reward, _, _, _ = env.step(action)
        speed = (env.unwrapped.data.body("torso").xpos[0] - before) / 0.05
        assert reward == pytest.approx(speed + 1 - 0.5 * np.sum(action**2))


@bullet
def test_bullets_ant_is_alive_or_its_episode_ends():
    """The first part of its reward is +1, or -1 at the end, when its body is lower than 0.26."""
    env = environments.make("AntBulletEnv-v0", 0)
    terminated = truncated = False
    while not (terminated or truncated):
        _, reward, terminated, truncated, _ = env.step(np.sin(np.arange(8) * 2.0))
        world = env.unwrapped
        height = world.robot.body_xyz[2]
        assert reward == sum(world.rewards) and world.rewards[0] == (1 if height > 0.26 else -1)
        assert terminated == (height <= 0.26)


@pytest.mark.parametrize(
    "env_id", [pytest.param("HalfCheetah-v4", marks=mujoco), pytest.param(BULLET[0], marks=bullet)]
)
def test_an_episode_is_cut_after_1000_steps(env_id):
    env = environments.make(env_id, 0)
    ends = [env.step(np.zeros(6))[2:4] for _ in range(1000)]
    assert ends[-1] == (False, True) and set(ends[:-1]) == {(False, False)}


# seeds and --resume


@pytest.mark.parametrize("env_id", BOTH)
def test_a_seed_repeats_an_environment_bit_for_bit(env_id):
    """Whatever else is played meanwhile."""
    first, again, other = (environments.make(env_id, seed) for seed in (3, 3, 4))
    start, start_again, start_other = (env.reset()[0] for env in (first, again, other))
    np.testing.assert_array_equal(start, start_again)
    assert (start != start_other).any()
    expected = spin(first, 200)
    spin(other, 50)
    np.testing.assert_array_equal(spin(again, 200), expected)


@pytest.mark.parametrize("env_id", BOTH)
def test_an_episode_is_played_again_from_a_checkpoint(tmp_path, env_id):
    """In its middle; what comes after it is the same too, the next start state included."""
    env, other = (Replayable(environments.make(env_id, seed)) for seed in (3, 4))
    for each in (env, other):
        each.reset()
    spin(env, 130)
    spin(other, 7, seed=1)
    checkpoint.save(tmp_path / "run.npz", envs=[env])
    checkpoint.load(tmp_path / "run.npz", envs=[other])
    assert len(other.actions) == len(env.actions)
    np.testing.assert_array_equal(spin(other, 300, seed=2), spin(env, 300, seed=2))
    np.testing.assert_array_equal(other.reset()[0], env.reset()[0])


@mujoco
def test_a_run_that_is_stopped_and_resumed_equals_one_that_is_not(tmp_path, monkeypatch):
    """Stopped by Ctrl-C in the middle of every episode."""
    from a2c import main
    from a2c.agent import A2C

    def run(out, *flags):
        sizes = ["--workers", 2, "--n-steps", 5, "--steps", 1200, "--hidden", 8]
        words = ["--train", "--env", "Ant-v4", *sizes, "--out", out, *flags]
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, words)])
        main.main()
        with np.load(out / "model/a2c/Ant-v4/actor.npz") as file:
            return {name: file[name] for name in file.files}

    whole = run(tmp_path / "whole")
    own, calls = A2C.update, itertools.count(1)

    def update(self, *batch):
        report = own(self, *batch)
        if next(calls) == 71:
            signal.raise_signal(signal.SIGINT)
        return report

    monkeypatch.setattr(A2C, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    resumed = run(tmp_path / "parts", "--resume")
    assert resumed.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array)


# --no-unhealthy


@mujoco
def test_a_fall_ends_an_episode_and_with_no_unhealthy_it_does_not():
    ends = {}
    for env_id in ("Ant-v4", environments.without_unhealthy("Ant-v4")):
        env = environments.make(env_id, 0)
        env.reset()
        env.unwrapped.data.qpos[2] = 2.0  # above what counts as healthy
        _, _, terminated, _, info = env.step(np.zeros(8))
        ends[env_id] = terminated, info["reward_survive"]
    assert ends == {"Ant-v4": (True, 1.0), "Ant-v4-no-unhealthy": (False, 0.0)}


def parse(monkeypatch, folder, *words):
    main = importlib.import_module(f"{folder}.main")
    monkeypatch.setattr(sys, "argv", ["main.py", *words])
    return command.parse(main.Config, main.PRESETS)


def test_no_unhealthy_is_an_environment_of_its_own_with_weights_of_its_own(monkeypatch):
    """So are its processes, its films and --resume; the settings are those of the other."""
    plain = parse(monkeypatch, "sac", "--train", "--env", "Ant-v4")
    free = parse(monkeypatch, "sac", "--train", "--env", "Ant-v4", "--no-unhealthy")
    assert (plain.env, free.env) == ("Ant-v4", "Ant-v4-no-unhealthy")
    assert free.run_settings() == plain.run_settings() | {"env": free.env}
    assert free.model_folder != plain.model_folder
    assert parse(monkeypatch, "sac", "--train", "--env", free.env).run_settings() == free.run_settings()
    assert parse(monkeypatch, "sac", "--train", "--env", free.env, "--no-unhealthy").env == free.env


@pytest.mark.parametrize("env_id", ["HalfCheetah-v4", "AntBulletEnv-v0", "Pendulum-v1"])
def test_no_unhealthy_where_no_fall_ends_an_episode(monkeypatch, env_id):
    with pytest.raises(UserError, match=f"--no-unhealthy: no fall ends an episode of {env_id}"):
        parse(monkeypatch, "sac", "--train", "--env", env_id, "--no-unhealthy")


# presets


OF_ANTS = {  # what differs, in MuJoCo and in PyBullet: name, the cheetah's, the ant's
    "trpo": ([], [("steps", 3e6, 5e6), ("delta", 0.03, 0.01)]),
    "td3": (
        [
            ("steps", 1e6, 8e5),
            ("start_steps", 10_000, 25_000),
            ("policy_lr", 1e-3, 3e-4),
            ("q_lr", 1e-3, 3e-4),
            ("uniform_weights", False, True),
        ],
        [("soft_tau", 0.005, 0.01), ("batch_size", 256, 128), ("hidden_dim", 256, 128)],
    ),
    "ppo": ([("log_std", -0.5, -1.5)], [("steps", 3e6, 5e6)]),
    "ddpg": ([("lr_a", 1e-3, 1e-4), ("lr_c", 1e-3, 3e-4)], []),
}


STEPS = {  # of cheetahs, in MuJoCo and in PyBullet
    "a2c": (10e6, 6e6),
    "trpo": (5e6, 3e6),
    "ppo": (5e6, 3e6),
    "acktr": (5e6, 3e6),
    "ddpg": (1e6, 0.5e6),
    "td3": (1e6, 1e6),
    "sac": (1e6, 1e6),
}


@pytest.mark.parametrize("folder, steps", STEPS.items())
def test_one_preset_for_all_that_runs_in_a_simulator(monkeypatch, folder, steps):
    off_policy = folder in ("ddpg", "td3", "sac")
    gammas, of_ants = (0.99, 0.98 if off_policy else 0.99), OF_ANTS.get(folder, ([], []))
    for ids, most, gamma, differing in zip((MUJOCO, BULLET), steps, gammas, of_ants, strict=True):
        presets = [parse(monkeypatch, folder, "--train", "--env", env_id).run_settings() for env_id in ids]
        assert (presets[0]["steps"], presets[0]["episodes"], presets[0]["gamma"]) == (most, None, gamma)
        for name, cheetah, ant in differing:
            for preset in presets:
                assert preset.pop(name) == (ant if "Ant" in preset["env"] else cheetah)
        assert {preset.pop("env") for preset in presets} == set(ids)
        assert all(preset == presets[0] for preset in presets)


# the optional packages


def test_make_test_installs_the_pybullet_that_a_reader_installs():
    """Nothing but the place differs: dev.txt asks for it where there are wheels."""
    dev, bullet = (
        {line.split(";")[0] for line in (ROOT / "requirements" / name).read_text().splitlines() if ";" in line}
        for name in ("dev.txt", "bullet.txt")
    )
    assert bullet and bullet <= dev


@pytest.mark.parametrize("folder", CONTINUOUS)
@pytest.mark.parametrize(
    "env_id, package, file",
    [("Ant-v4", "mujoco", "mujoco"), ("HalfCheetah-v5", "gymnasium", "mujoco"), (BULLET[1], "pybullet", "bullet")],
)
def test_without_the_package_there_is_one_line_that_says_what_to_install(monkeypatch, folder, env_id, package, file):
    for name in (f"common.{file}", package):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["main.py", "--train", "--env", env_id])
    with pytest.raises(
        UserError, match=f"^{env_id} needs a package that is not installed: .*; pip install -r requirements/{file}.txt"
    ) as error:
        importlib.import_module(f"{folder}.main").main()
    assert "\n" not in str(error.value)


def test_without_the_package_the_status_is_2(command, tmp_path):
    (tmp_path / "mujoco.py").write_text("raise ImportError(\"No module named 'mujoco'\")\n")
    result = command("sac", "--train", "--env", "Ant-v4", PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: Ant-v4 needs a package that is not installed: No module named")


# films


@pytest.mark.parametrize("env_id, shape", [case("Ant-v4", (160, 240, 3)), case("AntBulletEnv-v0", (120, 160, 3))])
def test_films_without_a_display(tmp_path, monkeypatch, env_id, shape, capfd):
    """TensorFlow is in this process, and software OpenGL beside it would end it with a signal."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    spec = gym.envs.registry[env_id]
    gym.register("Short-v0", spec.entry_point, max_episode_steps=20, kwargs=spec.kwargs)
    config = Options(env="Short-v0", test_episodes=2, record=tmp_path / "film.gif")
    try:
        rewards = playing.play(config, lambda state: np.sin(8 * state[:8]))
    except UserError as error:
        pytest.skip(str(error))
    finally:
        gym.envs.registry.pop("Short-v0")
    film = imageio.v3.imread(config.record, index=None)[..., :3].astype(int)
    assert film.shape == (10, *shape)
    assert film[0].std() > 20 and all(np.abs(a - b).max() > 50 for a, b in itertools.pairwise(film))
    assert len(rewards) == 2 and rewards[0] != rewards[1]
    assert capfd.readouterr().err == ""


@mujoco
def test_pictures_follow_the_ant_and_change_nothing():
    env, plain = environments.make("Ant-v4", 0, "rgb_array"), environments.make("Ant-v4", 0)
    env.reset(), plain.reset()
    for each in (env, plain):
        each.unwrapped.data.qpos[:2] = 30, 40
    try:
        picture = env.render()
    except UserError as error:
        pytest.skip(str(error))
    red, green, blue = picture[195, 240].astype(int)
    assert picture.shape == (320, 480, 3) and red > green > blue + 30  # the ant is brown, the floor is not
    np.testing.assert_array_equal(spin(env, 50), spin(plain, 50))
    env.close()


@mujoco
def test_the_process_that_plays_loads_no_opengl():
    """TensorFlow is in it, so MUJOCO_GL is for the one that draws."""
    script = (
        "import os, sys; from common import environments; environments.make('Ant-v4', 0, 'rgb_array')\n"
        "from common.mujoco import _renderers; print('OpenGL' in sys.modules, _renderers())"
    )
    words = [sys.executable, "-c", script]
    result = subprocess.run(words, cwd=ROOT, env=os.environ | {"MUJOCO_GL": "osmesa"}, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("False ['osmesa']\n", "")


@mujoco
def test_where_nothing_draws_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nothing")
    env = environments.make("HalfCheetah-v4", 0, "rgb_array")
    with pytest.raises(UserError, match=r"nothing here draws MuJoCo's pictures.* sudo apt-get install libosmesa6$"):
        env.render()
