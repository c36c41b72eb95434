"""Commands as a user runs them, and small environments whose values are known."""

import os
import subprocess
import sys
from pathlib import Path

import gym
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = sorted(path.parent.name for path in ROOT.glob("*/agent.py"))


@pytest.fixture
def command(tmp_path):
    """Run `python <algorithm>/main.py ...` in an empty folder, without a display; returns the finished process."""

    def run(algorithm, *flags, **environment):
        hidden = {"DISPLAY", "WAYLAND_DISPLAY"}
        return subprocess.run(
            [sys.executable, str(ROOT / algorithm / "main.py"), *map(str, flags)],
            cwd=tmp_path,
            env={**{key: value for key, value in os.environ.items() if key not in hidden}, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


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
