"""Atari Pong for gym: the game on the Arcade Learning Environment, and what section 5.10.2 makes of its pictures."""

from typing import ClassVar

import gym
import numpy as np

from common.environments import PICTURE

try:
    import ale_py
    from ale_py import roms
except ImportError as error:
    raise gym.error.DependencyNotInstalled(f"{error}; pip install ale-py") from None

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner


class Pong(gym.Env):
    """The game of section 5.10.1: one RGB picture a step, six actions; +1 or -1 at each point, and 21 points win.

    Actions: 0 nothing, 1 fire, 2 right (the paddle goes up), 3 left (down), 4 right and fire, 5 left and fire.
    Observations: uint8 [210, 160, 3].

    frame_skip: (fewest, most) frames that a step takes; drawn anew at each step.
    repeat_action_probability: at each frame, the chance that the game sees the action of the frame before.
    The defaults are those of the book's Pong-V0.
    """

    metadata: ClassVar = {"render_modes": ["human", "rgb_array"], "render_fps": 20}  # 60 frames a second, 3 a step
    observation_space = gym.spaces.Box(0, 255, (210, 160, 3), np.uint8)
    action_space = gym.spaces.Discrete(6)

    def __init__(self, render_mode=None, frame_skip=(2, 4), repeat_action_probability=0.25):
        self.render_mode, self.frame_skip = render_mode, frame_skip
        self.repeat_action_probability = repeat_action_probability
        self.ale = ale_py.ALEInterface()
        # The game itself is deterministic: what is random is drawn here, by the seeded generator.
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(roms.get_rom_path("pong"))
        self.actions = self.ale.getMinimalActionSet()
        self.window = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.ale.reset_game()
        self.held = 0  # the action that the game sees
        return self._picture(), {"lives": self.ale.lives()}

    def step(self, action):
        fewest, most = self.frame_skip
        reward = 0.0
        for _ in range(self.np_random.integers(fewest, most + 1) if fewest < most else most):
            if self.np_random.random() >= self.repeat_action_probability:
                self.held = action
            reward += self.ale.act(self.actions[self.held])
            if self.ale.game_over():
                break
        return self._picture(), reward, self.ale.game_over(), False, {"lives": self.ale.lives()}

    def render(self):
        return self.ale.getScreenRGB() if self.render_mode == "rgb_array" else None

    def close(self):
        if self.window:
            import pygame

            pygame.display.quit()
            self.window = None

    def _picture(self) -> np.ndarray:
        picture = self.ale.getScreenRGB()
        if self.render_mode == "human":
            self._show(picture)
        return picture

    def _show(self, picture: np.ndarray) -> None:
        """Draw three times as large, at the speed of the game."""
        import pygame

        if self.window is None:
            pygame.display.init()
            pygame.display.set_caption("Pong")
            self.window, self.clock = pygame.display.set_mode((480, 630)), pygame.time.Clock()
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self.window.blit(pygame.transform.scale(surface, self.window.get_size()), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self.clock.tick(self.metadata["render_fps"])


def binary(picture: np.ndarray) -> np.ndarray:
    """The field without scores, every second pixel: True where a paddle or the ball is.

    picture: uint8 [210, 160, 3] -> bool [6400], 80 rows of 80.
    """
    red = picture[35:195:2, ::2, 0].ravel()
    return (red != 144) & (red != 109) & (red != 0)  # 144, 109: the two colours of the background


class Differences(gym.Wrapper):
    """Pong as section 5.10.2 feeds it to the network.

    A state is the difference of two successive pictures, int8 [6400] of -1, 0 and 1: it shows what moves and
    where to. The first one of a game is zero, or with `present` that picture. Actions: 0 nothing, 1 up, 2 down.

    present: show the present picture, too: 1 wherever something is, -1 where something was.
    """

    observation_space = PICTURE
    action_space = gym.spaces.Discrete(3)
    ACTIONS = (0, 2, 3)  # of the game

    def __init__(self, env, present=False):
        super().__init__(env)
        self.present = present

    def reset(self, **arguments):
        picture, info = self.env.reset(**arguments)
        self.previous = binary(picture).view(np.int8)
        return self.previous if self.present else np.zeros_like(self.previous), info

    def step(self, action):
        picture, reward, terminated, truncated, info = self.env.step(self.ACTIONS[action])
        now = binary(picture).view(np.int8)
        state = now - self.previous
        if self.present:
            state |= now
        self.previous = now
        return state, reward, terminated, truncated, info


def make(present=False, **settings) -> gym.Env:
    """Pong(**settings), seen through Differences; gym's entry point."""
    return Differences(Pong(**settings), present)
