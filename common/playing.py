"""Watching an agent play: in a window, in a GIF or an MP4."""

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import imageio
import numpy as np
from PIL import Image

from common import environments, weights
from common.command import Options, UserError
from common.files import replacing

GIF_BYTES, GIF_FRAMES = 1_000_000, 3_000
COLOURS = 64


def weights_folder(config: Options) -> Path:
    """The reader's own weights or, if nothing was trained yet, the shipped ones; says which."""
    for folder, origin in ((config.model_folder, "your own"), (config.pretrained_folder, "the shipped")):
        if weights.exist(folder):
            print(f"Testing with {origin} weights: {folder}")
            return folder
    shipped = ", ".join(sorted(path.name for path in config.pretrained_folder.parent.glob("*/")))
    raise UserError(f"there are no weights for {config.env} yet: run with --train first (shipped: {shipped})")


def play(config: Options, get_action: Callable) -> list[float]:
    """Play config.test_episodes episodes with `get_action(state)`; returns each episode's reward.

    With a display they are shown; without one, or with --record, the first becomes a film.
    """
    film_file = config.record
    if film_file is None and not environments.has_display():
        film_file = config.image_file(".gif")
        print(f"There is no display here: the first episode goes to {film_file}")
    env = environments.make(config.env, config.seed, "rgb_array" if film_file else "human")
    if env.render_mode is None:
        film_file = None
        print(f"{config.env} can't be shown: it takes no render_mode")
    rewards, start = [], time.perf_counter()
    for episode in range(config.test_episodes):
        film = film_file if episode == 0 else None
        frames = _episode(env, get_action, rewards, pictures=film is not None)
        if film:
            write_film(film, frames, env.metadata.get("render_fps", 30))
        deque(frames, maxlen=0)  # to its end: a film may have had enough before
        print(
            f"Testing | Episode: {episode + 1}/{config.test_episodes} | Episode Reward: {rewards[-1]:.4f}"
            f" | Running Time: {time.perf_counter() - start:.4f}"
        )
    env.close()
    print(f"Testing | Mean of {len(rewards)}: {np.mean(rewards):.1f} | Standard deviation: {np.std(rewards):.1f}")
    return rewards


def _episode(env, get_action: Callable, rewards: list[float], pictures: bool) -> Iterator[np.ndarray | None]:
    """Play an episode, whose reward joins `rewards`; yields what there is to see before each step, or None."""
    state, _ = env.reset()
    episode_reward, done = 0.0, False
    while not done:
        yield env.render() if pictures else None
        state, reward, terminated, truncated, _ = env.step(get_action(state))
        episode_reward += reward
        done = terminated or truncated
    rewards.append(float(episode_reward))


def write_film(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Write frames, uint8 [height, width, 3] each, as .mp4, or as a .gif of half the size and frame rate.

    They are taken as they come: a game of Pong has a gigabyte of them. A .gif has 64 colours, 3,000 frames and a
    million bytes at most, if one frame has no more: it ends early rather than get larger.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            if path.suffix == ".gif":
                few = [_half(frame) for frame in islice(frames, 0, 2 * GIF_FRAMES, 2)]
                temporary.write_bytes(_gif(few, 2000 / fps))
            else:
                with closing(imageio.get_writer(temporary, fps=fps, macro_block_size=2)) as film:  # at an error, too
                    for frame in frames:
                        film.append_data(frame)
    except OSError as error:
        raise UserError(f"can't write {path} ({error.strerror or error})") from None


def _gif(frames: list[np.ndarray], duration: float) -> bytes:
    """The frames in the same colours: where each chooses its own, a floor that moves needs five times the bytes.

    duration: of a frame, in milliseconds.
    """
    some = Image.fromarray(np.concatenate(frames[:: 1 + len(frames) // 20]))
    colours = some.quantize(COLOURS, kmeans=3)  # without these three rounds what is small gets the floor's colours
    images = [Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    while True:
        file = io.BytesIO()
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
        if (size := file.tell()) <= GIF_BYTES or len(images) == 1:
            return file.getvalue()
        images = images[: max(1, int(0.95 * len(images) * GIF_BYTES / size))]


def _half(frame: np.ndarray) -> np.ndarray:
    """The mean of every 2x2 pixels: a line one pixel wide stays visible."""
    height, width, _ = frame.shape
    blocks = frame[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, 3)
    return blocks.mean((1, 3)).round().astype(np.uint8)
