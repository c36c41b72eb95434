"""MuJoCo for gym: Gymnasium's environments, with their pictures drawn by another process."""

import os
import signal
import sys
import warnings
from multiprocessing import Pipe, get_context
from unittest import mock

import numpy as np

from common.command import UserError
from common.environments import NO_UNHEALTHY, gym  # without gym's banner: the process that draws begins here

try:
    with mock.patch.dict(os.environ, MUJOCO_GL="disable"):  # no OpenGL beside TensorFlow: see Drawn
        import gymnasium
        import mujoco  # noqa: F401  what Gymnasium says where it is missing is not what installs it here
except ImportError as error:
    raise gym.error.DependencyNotInstalled(f"{error}; pip install -r requirements/mujoco.txt") from None


class Drawn(gym.Wrapper):
    """An environment whose pictures another process draws, told where the joints are and how fast.

    OpenGL in software (OSMesa, and Mesa's EGL) and TensorFlow bring LLVM along, each its own: together in one process
    they crash. The other one never loads TensorFlow, and it ends with this one.
    """

    render_mode = "rgb_array"

    def __init__(self, env, env_id: str):
        super().__init__(env)
        self.env_id, self.painter = env_id, None

    def render(self) -> np.ndarray:
        """uint8 [320, 480, 3]. Raises UserError if nothing here can draw."""
        joints = self.unwrapped.data.qpos.copy(), self.unwrapped.data.qvel.copy()
        if self.painter:
            self.painter.send(joints)
            return self.painter.recv()
        for renderer in _renderers():  # the first that works
            self.painter, theirs = Pipe()
            get_context("spawn").Process(target=_paint, args=(theirs, self.env_id, renderer), daemon=True).start()
            theirs.close()  # so that the pipe ends with the process that has it
            try:
                self.painter.send(joints)
                return self.painter.recv()
            except (EOFError, OSError):
                self.painter = None
        raise UserError("nothing here draws MuJoCo's pictures; on Debian and Ubuntu: apt-get install libosmesa6")

    def close(self):
        if self.painter:
            self.painter.close()
        self.env.close()


def _renderers() -> list[str]:
    """What draws, as MUJOCO_GL names it: on Linux without a window, by a graphics card or else by the processor."""
    if chosen := os.environ.get("MUJOCO_GL"):
        return [chosen]
    return ["egl", "osmesa"] if sys.platform.startswith("linux") else ["glfw"]


def _paint(pipe, env_id: str, renderer: str) -> None:
    """The process that draws: joints in, pictures out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that plays
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # that something does not work is what it is there to find out
    os.environ["MUJOCO_GL"] = renderer
    env = gymnasium.make(env_id, render_mode="rgb_array", width=480, height=320, camera_name="track").unwrapped
    # The processor needs 12 ms a picture so, and five times as many with what they are at first.
    env.model.vis.quality.offsamples, env.model.vis.quality.shadowsize = 0, 1024
    try:
        while True:
            env.set_state(*pipe.recv())
            pipe.send(env.render())
    except EOFError:
        pass


def make(env_id: str, render_mode: str | None = None):
    """Gymnasium's environment, without its wrappers, as gym puts its own around it; gym's entry point."""
    settings = {"terminate_when_unhealthy": False} if env_id.endswith(NO_UNHEALTHY) else {}
    env_id = env_id.removesuffix(NO_UNHEALTHY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a v5
        env = gymnasium.make(env_id, disable_env_checker=True, **settings).unwrapped
    if render_mode is None:
        return env
    env = Drawn(env, env_id)
    return gym.wrappers.HumanRendering(env) if render_mode == "human" else env
