"""PyBullet for gym: environments written for the gym of 2018."""

import contextlib
import importlib
import importlib.util
import os
import sys
from typing import ClassVar

import gym

from common.quiet import quiet


@contextlib.contextmanager
def _silent():
    """Nothing on standard output: PyBullet's C code writes 'argv[0]=' there for each world."""
    sys.stdout.flush()
    output, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)


def _locomotion():
    """PyBullet's module of what walks and runs.

    Its package is not run: it registers its environments with a gym that is gone. The modules put folders into the
    path of modules, which they need while they load.
    """
    path = sys.path.copy()
    with quiet():  # PyBullet prints when it was built
        import pybullet  # noqa: F401  an error here is that PyBullet is missing

        sys.modules["pybullet_envs"] = importlib.util.module_from_spec(importlib.util.find_spec("pybullet_envs"))
        module = importlib.import_module("pybullet_envs.gym_locomotion_envs")
    sys.path[:] = path
    return module


try:
    locomotion = _locomotion()
except ImportError as error:
    hint = "pip install -r requirements/bullet.txt (on Python 3.10 or 3.11; Linux x86-64)"
    raise gym.error.DependencyNotInstalled(f"{error}; {hint}") from None


class Bullet(gym.Wrapper):
    """An environment of PyBullet with today's `reset`, `step` and `render`."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 60}
    render_mode = None

    def __init__(self, env, render_mode: str | None):
        super().__init__(env)
        self.render_mode = render_mode
        with _silent():
            env.reset()  # the first one loads the world, and its episode alone is not to the bit what --resume plays

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.env.seed(seed)
        return self.env.reset(), {}

    def step(self, action):
        state, reward, done, info = self.env.step(action)
        return state, reward, done, False, info

    def render(self):
        """uint8 [240, 320, 3], by PyBullet's own renderer, which needs no OpenGL."""
        return self.env.render("rgb_array")


def make(env_id: str, render_mode: str | None = None) -> gym.Env:
    """PyBullet's environment; gym's entry point. 'AntBulletEnv-v0' is the class AntBulletEnv.

    A window shows what a film does: PyBullet's own, in software OpenGL, and TensorFlow bring each other down.
    """
    env = Bullet(getattr(locomotion, env_id.removesuffix("-v0"))(), render_mode and "rgb_array")
    return gym.wrappers.HumanRendering(env) if render_mode == "human" else env
