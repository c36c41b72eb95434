"""Environments: gym's, under the book's ids or today's, with actions kept inside their bounds."""

import difflib
import importlib
import os
import re
import sys
import types
import warnings

import numpy as np

from common.command import UserError
from common.quiet import quiet

# SDL would draw its windows with OpenGL, and where that is software (a remote desktop, a virtual machine), it crashes
# beside TensorFlow: each brings an LLVM of its own along.
os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")

with quiet():  # gym 0.26.2 prints a banner
    import gym
    from gym.envs.classic_control import acrobot

# Its Runge-Kutta step asks for a name that NumPy 2 no longer has.
acrobot.np = types.SimpleNamespace(**{**vars(np), "float_": np.float64})

# The folders for each kind of actions.
SERVING = {
    "discrete": "reinforce, ac, a2c, a3c, trpo, ppo or acktr",
    "continuous": "a2c, a3c, trpo, ppo, acktr, ddpg, td3 or sac",
}

# The book's versions that gym no longer has.
SUCCESSORS = {"Pendulum-v0": "Pendulum-v1", "BipedalWalker-v2": "BipedalWalker-v3"}

# Atari's ids of old; as in the book the state is the difference of two pictures, here of 80x80 pixels, flat.
# A game is cut after half an hour, 108,000 frames, as in ale-py: gym's 10,000 steps end most that a good player wins.
PICTURE = gym.spaces.Box(-1, 1, (6400,), np.int8)
gym.register("Pong-v0", "common.pong:make", max_episode_steps=36_000)
gym.register("PongPresent-v0", "common.pong:make", max_episode_steps=36_000, kwargs={"present": True})
gym.register(
    "PongDeterministic-v4",
    "common.pong:make",
    max_episode_steps=27_000,
    kwargs={"frame_skip": (4, 4), "repeat_action_probability": 0.0},
)

# What runs, in MuJoCo and in PyBullet. Gymnasium's MuJoCo: gym's own under the same ids is of an older one.
NO_UNHEALTHY = "-no-unhealthy"  # after an id: the same environment, in which an episode goes on after a fall
_FALLING = [f"{name}-{version}" for name in ("Ant", "Hopper", "Humanoid", "Walker2d") for version in ("v4", "v5")]
MUJOCO = ["HalfCheetah-v4", "HalfCheetah-v5", *_FALLING]
ANTS = ["Ant-v4", "Ant-v5"]
BULLET = ["HalfCheetahBulletEnv-v0", "AntBulletEnv-v0"]
for _id in [*MUJOCO, *BULLET, *(env_id + NO_UNHEALTHY for env_id in _FALLING)]:
    gym.envs.registry.pop(_id, None)
    _module = "common.bullet:make" if _id in BULLET else "common.mujoco:make"
    gym.register(_id, _module, max_episode_steps=1000, kwargs={"env_id": _id})


def current_id(env_id: str) -> str:
    """Today's id of an environment that the book may spell differently: 'Pendulum-V0' -> 'Pendulum-v1'."""
    env_id = re.sub(r"-V(\d+)$", r"-v\1", env_id)
    return SUCCESSORS.get(env_id, env_id)


def without_unhealthy(env_id: str) -> str:
    """The id under which an episode goes on after a fall. Raises UserError if no fall ends one of env_id's."""
    if (other := env_id.removesuffix(NO_UNHEALTHY) + NO_UNHEALTHY) not in gym.envs.registry:
        raise UserError(f"--no-unhealthy: no fall ends an episode of {env_id}, or it can't be told not to")
    return other


class _Float64(np.ndarray):
    """An action that stays float64: gym's LunarLander casts it to float32, which Box2D refuses under NumPy 2."""

    def astype(self, *_, **__):
        return self


class BoundedActions(gym.ActionWrapper):
    """Accepts any real action and gives the environment one inside its bounds.

    Agents see the symmetric space [-b, b], b = (high - low) / 2. An action is clipped to it and moved to
    [low, high]. A stochastic policy can therefore store its action as sampled, which is the one whose
    likelihood it knows. (Actions become float64: rendering gym's Pendulum fails on float32.)
    Raises FloatingPointError on an action that is no number, before a simulation stumbles over it.
    """

    def __init__(self, env):
        super().__init__(env)
        low, high = np.asarray(env.action_space.low, float), np.asarray(env.action_space.high, float)
        self.centre, self.bound = (high + low) / 2, (high - low) / 2
        self.action_space = gym.spaces.Box(-self.bound, self.bound, dtype=np.float64)

    def action(self, action):
        if not np.isfinite(action).all():
            raise FloatingPointError("an action is no longer a finite number")
        return (np.minimum(np.maximum(action, -self.bound), self.bound) + self.centre).view(_Float64)


class FloatStates(gym.ObservationWrapper):
    """Gives states of whole numbers as float32, as integers are taken for pictures (`common.pixels`)."""

    def observation(self, observation):
        return np.asarray(observation, np.float32)


class Replayable(gym.Wrapper):
    """Remembers how its episode came about: a resumed run plays it again and goes on in the middle of it.

    origin: the state of the environment's random generator before the episode's reset.  actions: those taken since.
    """

    def reset(self, **arguments):
        self.origin, self.actions = self.unwrapped.np_random.bit_generator.state, []
        return self.env.reset(**arguments)

    def step(self, action):
        self.actions.append(action)
        return self.env.step(action)

    def replay(self, origin: dict, actions: np.ndarray) -> None:
        """Bring the environment to where the actions lead from origin, its random generator included."""
        self.unwrapped.np_random.bit_generator.state = origin
        self.reset()
        for action in actions:
            self.step(action)


def has_display() -> bool:
    """Whether a window can be opened here."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    with quiet():  # the variable may be left over from a session that has gone: SDL tries
        import pygame

        try:
            pygame.display.init()
            return pygame.display.get_driver() not in ("dummy", "offscreen")
        except pygame.error:
            return False
        finally:
            pygame.display.quit()


def make(env_id: str, seed: int, render_mode: str | None = None) -> gym.Env:
    """A seeded environment of gym, or of Gymnasium where gym has no such id and Gymnasium is installed.

    `step` returns (state, reward, terminated, truncated, info): terminated is a true end of the task,
    truncated is a time limit. An environment that takes no render_mode (a reader's own, perhaps) is made without.
    Raises UserError on an unknown id (with the nearest names) and on spaces
    that no folder of this project serves.
    """
    if render_mode == "human" and not has_display():
        raise UserError("there is no display to open a window on; --test --record FILE.gif makes a film instead")
    env = _make(env_id, render_mode)
    *_, action_bound = dimensions(env)
    if action_bound is not None:
        env = BoundedActions(env)
    if env.observation_space.dtype.kind != "f" and env.observation_space != PICTURE:
        env = FloatStates(env)
    env.reset(seed=seed)
    return env


def dimensions(env) -> tuple[int, int, np.ndarray | None]:
    """(state_dim, action_dim, action_bound) as the agents' constructors take them.

    action_bound: float32 [action_dim], the largest action; None where the actions are discrete, and
    action_dim is then their number. Raises UserError where the spaces are others.
    """
    name, observations, actions = env.spec.id, env.observation_space, env.action_space
    if len(observations.shape or ()) != 1:
        raise UserError(f"{name}: observations must be vectors, and these are {observations}")
    if hasattr(actions, "n") and not actions.shape:
        return observations.shape[0], int(actions.n), None
    if not hasattr(actions, "high") or len(actions.shape) != 1:
        raise UserError(f"{name}: actions must be a vector or one of n choices, and these are {actions}")
    if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise UserError(f"{name}: actions must have finite bounds, and these are {actions}")
    bound = (np.asarray(actions.high, float) - np.asarray(actions.low, float)) / 2
    return observations.shape[0], actions.shape[0], bound.astype(np.float32)


def require_actions(env, kind: str) -> None:
    """Raise UserError unless the environment's actions are of the `kind`, 'continuous' or 'discrete'."""
    found = "discrete" if dimensions(env)[2] is None else "continuous"
    if found != kind:
        raise UserError(
            f"{env.spec.id} has {found} actions, and this algorithm needs {kind} ones; see {SERVING[found]}"
        )


def require_pictures(env) -> None:
    """Raise UserError unless the environment's states are pictures, as --convolutions needs them."""
    if env.observation_space != PICTURE:
        raise UserError(f"--convolutions is for pictures, and {env.spec.id} has numbers")


def require_numbers(env, what: str) -> None:
    """Raise UserError if the environment's states are pictures; what: that which can't take them."""
    if env.observation_space == PICTURE:
        raise UserError(f"{what} is for states of numbers, and {env.spec.id} has pictures")


def _without_if_need_be(make, env_id: str, rendering: dict, **settings):
    """An environment that takes no render_mode is made without one."""
    try:
        return make(env_id, **rendering, **settings)
    except TypeError:
        if not rendering:
            raise
        return make(env_id, **settings)


def _make(env_id: str, render_mode: str | None):
    rendering = {"render_mode": render_mode} if render_mode else {}
    module, colon, _ = env_id.rpartition(":")
    if colon:  # 'module:id', imported first
        try:
            importlib.import_module(module)
        except (ImportError, TypeError, ValueError) as error:  # no such module; a name like '..' or ''
            raise UserError(f"--env {env_id}: {error}") from None
    try:
        with warnings.catch_warnings():  # "out of date" for CartPole-v0, which the book uses
            warnings.simplefilter("ignore")
            # gym's passive checker uses np.bool8, which NumPy 2 no longer has
            return _without_if_need_be(gym.make, env_id, rendering, disable_env_checker=True)
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{env_id} needs a package that is not installed: {error}") from None
    except gym.error.Error:
        pass
    try:
        import gymnasium
    except ImportError:
        known = list(gym.envs.registry)
    else:
        try:
            return _without_if_need_be(gymnasium.make, env_id, rendering)
        except gymnasium.error.DependencyNotInstalled as error:
            raise UserError(f"{env_id} needs a package that is not installed: {error}") from None
        except gymnasium.error.Error:
            known = [*gym.envs.registry, *gymnasium.registry]
    near = difflib.get_close_matches(env_id, known, n=3, cutoff=0.5)
    hint = f"; the nearest are {', '.join(near)}" if near else ""
    raise UserError(f"there is no environment '{env_id}'{hint}")
