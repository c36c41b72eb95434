"""MuJoCo for gym: Gymnasium's environments, with their pictures drawn by another process."""

import os
import signal
import sys
import warnings
from multiprocessing import Pipe, get_context

import numpy as np

from common.command import UserError
from common.environments import NO_UNHEALTHY, gym  # without gym's banner: the process that draws begins here

try:
    import gymnasium
    import mujoco  # noqa: F401  what Gymnasium says where it is missing is not what installs it here
except ImportError as error:
    raise gym.error.DependencyNotInstalled(f"{error}; pip install -r requirements/mujoco.txt") from None


class Shown(gym.Wrapper):
    """An environment whose pictures another process draws, told where the joints are and how fast.

    OpenGL in software (OSMesa, and Mesa's EGL) and TensorFlow bring LLVM along, each its own: together in one process
    they crash. The other one never loads TensorFlow, and it ends with this one.
    """

    render_mode = None  # and not that of the environment inside, which draws nothing

    def __init__(self, env, env_id: str, render_mode: str):
        super().__init__(env)
        self.env_id, self.render_mode, self.painter = env_id, render_mode, None

    def reset(self, **arguments):
        result = self.env.reset(**arguments)
        self._show()
        return result

    def step(self, action):
        result = self.env.step(action)
        self._show()
        return result

    def render(self) -> np.ndarray | None:
        """uint8 [320, 480, 3]; None if there is a window. Raises UserError if nothing here can draw."""
        return self._draw() if self.render_mode == "rgb_array" else None

    def close(self):
        if self.painter:
            self.painter.close()
        self.env.close()

    def _show(self) -> None:
        if self.render_mode == "human":
            self._draw()

    def _draw(self):
        joints = self.unwrapped.data.qpos.copy(), self.unwrapped.data.qvel.copy()
        if self.painter:
            self.painter.send(joints)
            return self.painter.recv()
        for renderer in _renderers(self.render_mode):  # the first that works
            self.painter, theirs = Pipe()
            arguments = (theirs, self.env_id, self.render_mode, renderer)
            get_context("spawn").Process(target=_paint, args=arguments, daemon=True).start()
            theirs.close()  # so that the pipe ends with the process that has it
            try:
                self.painter.send(joints)
                return self.painter.recv()
            except (EOFError, OSError):
                self.painter = None
        raise UserError("nothing here draws MuJoCo's pictures; on Debian and Ubuntu: apt-get install libosmesa6")


def _renderers(render_mode: str) -> list[str]:
    """What draws, as MUJOCO_GL names it: without a window, on Linux, a graphics card or else the processor."""
    if chosen := os.environ.get("MUJOCO_GL"):
        return [chosen]
    return ["egl", "osmesa"] if sys.platform.startswith("linux") and render_mode == "rgb_array" else ["glfw"]


def _paint(pipe, env_id: str, render_mode: str, renderer: str) -> None:
    """The process that draws: joints in, pictures out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that plays
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # that something does not work is what it is there to find out
    os.environ["MUJOCO_GL"] = renderer
    env = gymnasium.make(env_id, render_mode=render_mode, width=480, height=320).unwrapped
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
    return Shown(env, env_id, render_mode) if render_mode else env
