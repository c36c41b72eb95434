"""MuJoCo for gym: Gymnasium's environments, with their pictures drawn by another process."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np

from common.command import UserError
from common.environments import NO_UNHEALTHY, gym

try:
    with mock.patch.dict(os.environ, MUJOCO_GL="disable"):  # no OpenGL beside TensorFlow: see Drawn
        import gymnasium
        import mujoco  # what Gymnasium says where it is missing is not what installs it here
except ImportError as error:
    raise gym.error.DependencyNotInstalled(f"{error}; pip install -r requirements/mujoco.txt") from None


def read_model(path: str, from_xml_path=mujoco.MjModel.from_xml_path) -> mujoco.MjModel:
    """MuJoCo's from_xml_path, which on Windows opens no file in a folder whose name is not ASCII."""
    if path.isascii():
        return from_xml_path(path)
    return mujoco.MjModel.from_xml_string(Path(path).read_text(encoding="utf-8"))


if sys.platform == "win32":
    mujoco.MjModel.from_xml_path = read_model


class Drawn(gym.Wrapper):
    """An environment whose pictures another process draws, told where the joints are and how fast.

    OpenGL in software (OSMesa, and Mesa's EGL) and TensorFlow bring LLVM along, each its own: together in one process
    they crash. The other one is this module as a program, without TensorFlow, and it ends with this process.
    """

    render_mode = "rgb_array"

    def __init__(self, env, env_id: str):
        super().__init__(env)
        self.env_id, self.painter = env_id, None

    def render(self) -> np.ndarray:
        """uint8 [320, 480, 3]. Raises UserError if nothing here can draw."""
        if self.painter:
            return self._picture()
        for renderer in _renderers():  # the first that works
            self.painter = subprocess.Popen(
                [sys.executable, "-m", "common.mujoco", self.env_id],
                cwd=Path(__file__).parents[1],
                env=os.environ | {"MUJOCO_GL": renderer},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # that something does not work is what it is there to find out
            )
            try:
                return self._picture()
            except (EOFError, OSError):
                self.close()
        raise UserError("nothing here draws MuJoCo's pictures; on Debian and Ubuntu: sudo apt-get install libosmesa6")

    def _picture(self) -> np.ndarray:
        pickle.dump((self.unwrapped.data.qpos, self.unwrapped.data.qvel), self.painter.stdin)
        self.painter.stdin.flush()
        return pickle.load(self.painter.stdout)

    def close(self):
        if self.painter:
            self.painter.communicate()  # which closes its input, and so it ends
            self.painter = None
        self.env.close()


def _renderers() -> list[str]:
    """What draws, as MUJOCO_GL names it: on Linux without a window, by a graphics card or else by the processor."""
    if chosen := os.environ.get("MUJOCO_GL"):
        return [chosen]
    return ["egl", "osmesa"] if sys.platform.startswith("linux") else ["glfw"]


def _paint(env_id: str) -> None:
    """The process that draws: joints come in, pictures go out, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that plays
    env = gymnasium.make(env_id, render_mode="rgb_array", width=480, height=320, camera_name="track").unwrapped
    # The processor needs 12 ms a picture so, and five times as many with what they are at first.
    env.model.vis.quality.offsamples, env.model.vis.quality.shadowsize = 0, 1024
    (floor,) = np.flatnonzero(env.model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
    env.model.geom_size[floor, :2] = 0  # it has no edge, which a cheetah reaches after seconds
    env.model.mat_texrepeat[env.model.geom_matid[floor]] = 0.5  # its squares a metre wide
    with contextlib.suppress(EOFError):
        while True:
            env.set_state(*pickle.load(sys.stdin.buffer))
            pickle.dump(env.render(), sys.stdout.buffer)
            sys.stdout.buffer.flush()


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


if __name__ == "__main__":
    _paint(sys.argv[1])
