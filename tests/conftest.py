"""Commands as a user runs them, and small environments whose values are known."""

import importlib
import os
import subprocess
import sys
import types
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as commands have it whose networks may have convolutions

import gym
import numpy as np
import pytest

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # as commands have it for small networks
os.environ["XLA_CACHE"] = "0"  # in this process no two compiled functions are the same; `xla_cache` is for commands

from common import command as cli
from common import environments
from common.loading import loading

with loading():
    import tensorlayer  # noqa: F401  and with it TensorFlow

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = sorted(path.parent.name for path in ROOT.glob("*/agent.py"))


NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "SDL_VIDEODRIVER": "dummy"}  # the last for macOS and Windows


@pytest.fixture(scope="session", autouse=True)
def xla_cache(tmp_path_factory):
    """One for the commands of all test processes, and empty at first."""
    base = tmp_path_factory.getbasetemp()
    os.environ["XLA_CACHE"] = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla")


@pytest.fixture
def command(tmp_path):
    """Run `python <algorithm>/main.py ...` in an empty folder, without a display; returns the finished process."""

    def run(algorithm, *flags, **environment):
        return subprocess.run(
            [sys.executable, str(ROOT / algorithm / "main.py"), *map(str, flags)],
            cwd=tmp_path,
            env={**os.environ, **NO_DISPLAY, **environment},
            capture_output=True,
            text=True,
            timeout=1200,
        )

    return run


@pytest.fixture
def here(monkeypatch, tmp_path, capfd):
    """The same as `command` in this process, where TensorFlow is loaded already."""

    def run(algorithm, *flags):
        monkeypatch.chdir(tmp_path)
        for variable, value in NO_DISPLAY.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setattr("sys.argv", ["main.py", *map(str, flags)])
        with pytest.raises(SystemExit) as stop:
            cli.run(importlib.import_module(f"{algorithm}.main").main)
        return subprocess.CompletedProcess(flags, stop.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def main_with(monkeypatch, tmp_path):
    """Run a folder's main in this process with flags."""

    def run(algorithm, *flags):
        monkeypatch.setattr("sys.argv", ["main.py", *map(str, flags), "--out", str(tmp_path)])
        importlib.import_module(f"{algorithm}.main").main()

    return run


@pytest.fixture
def no_film(monkeypatch):
    """--test only plays."""
    make = environments.make
    monkeypatch.setattr(environments, "make", lambda env_id, seed, render_mode=None: make(env_id, seed))


def is_orthogonal(W, gain):
    """Whether the rows or columns of a layer's weights, the fewer of them, are orthogonal and of this length."""
    W = np.asarray(W) if W.shape[0] >= W.shape[1] else np.asarray(W).T
    return np.allclose(W.T @ W / gain**2, np.eye(len(W.T)), rtol=1e-7, atol=1e-4)


@pytest.fixture(autouse=True)
def plain_graphs(request, monkeypatch):
    """Updates of this process as plain graphs, which are there in a third of the time, but for tests marked xla."""
    if not request.node.get_closest_marker("xla"):
        monkeypatch.setattr("common.compiling.xla_works", lambda: False)


class Constant(gym.Env):
    """Reward 1 at every step and no end but the time limit: every state is worth 1 / (1 - gamma)."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(2, np.float32), {}

    def step(self, action):
        return np.ones(2, np.float32), 1.0, False, False, {}


@pytest.fixture
def constant():
    """The environment `Constant`, cut after 10 steps."""
    return gym.wrappers.TimeLimit(Constant(), 10)


class Ends(gym.Env):
    """Episodes end in turn by a true end after 3 steps and by a time limit after 5; reward: the number of the step.

    A state is (episode, step), so none comes twice: what a loop hands over shows where it is from.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space
        self.spec = types.SimpleNamespace(id="Ends-v0")
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._state(), {}

    def step(self, action):
        self.t += 1
        terminated = self.t == 3 and self.episode % 2 == 0
        return self._state(), float(self.t), terminated, self.t == 5, {}

    def _state(self):
        return np.array([self.episode, self.t], np.float32)


class EndsAtTheLimit(Ends):
    """Every true end falls on the step that is also the last one of the time limit."""

    def step(self, action):
        state, reward, terminated, truncated, info = super().step(action)
        return state, reward, terminated, truncated or terminated, info


class PointAtTheLimit(Ends):
    """Its only reward is a point on the step at which the time limit cuts the episode off."""

    def step(self, action):
        state, _, terminated, truncated, info = super().step(action)
        return state, float(truncated), terminated, truncated, info


@pytest.fixture
def ends():
    """The environment `Ends` with two actions."""
    return Ends(gym.spaces.Discrete(2))
