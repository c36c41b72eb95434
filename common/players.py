"""Several processes that play at the same time: whole episodes, or environments that go on where they stopped."""

import atexit
import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import NamedTuple

import numpy as np

from common import environments
from common.acting import MLP, sample
from common.command import UserError
from common.pixels import kept


class Path(NamedTuple):
    """What was played at a stretch, at most to the end of an episode.

    states: those acted on, pictures packed as `common.pixels` does, [steps, ...].  next_state: after the last step.
    terminated: whether the task ended there.  episode: reward and length of the episode if it ended there, or None.
    """

    states: np.ndarray
    actions: list[int | np.ndarray]
    rewards: list[float]
    next_state: np.ndarray
    terminated: bool
    episode: tuple[float, int] | None


class Players:
    """`count` processes, each with its own environment `env_id`; to be used in a `with` statement.

    An episode depends on its policy and its seed only, and episodes come back in the order of their seeds:
    neither the number of processes nor their speed changes a result. The processes are spawned (a fork of
    one in which TensorFlow runs may hang) and never load TensorFlow.
    """

    def __init__(self, env_id: str, count: int):
        self.pools = [_pool(min(count, 61), env_id, [0])]  # Windows has no pool of more

    def play(self, policy: MLP, seeds: Iterable[int]) -> Iterator[Path]:
        """One episode for each seed, with actions sampled from softmax(policy(state)).

        Raises UserError if a process was ended from outside.
        """
        return self._results([(self.pools[0], _play, policy, seed) for seed in seeds])

    def _results(self, calls):
        with _alive(), _ctrl_c_waits():
            return map(_result, [pool.submit(*call) for pool, *call in calls])

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            for process in active_children():
                process.terminate()
        for pool in self.pools:
            pool.shutdown()  # no episode is cancelled: Python 3.11's pool may print a traceback where one was


class Tables(Players):
    """`count` processes that share environments, one for each seed, which play on where they stopped.

    What an environment plays depends on its seed and the policies only, not on the number of processes.
    """

    def __init__(self, env_id: str, seeds: list[int], count: int):
        self.pools = [_pool(1, env_id, share.tolist()) for share in np.array_split(seeds, min(count, len(seeds)))]

    def play(self, policy: MLP, steps: int, std: np.ndarray | None = None) -> Iterator[Path]:
        """The next `steps` steps of each environment in turn, with actions sampled from softmax(policy(state)).

        std: float32 [action_dim], where actions are continuous: they are from the Gaussian around policy(state).
        Raises UserError if a process was ended from outside.
        """
        calls = [(pool, _play_on, policy, steps, std) for pool in self.pools]
        return itertools.chain.from_iterable(self._results(calls))


def _result(future):
    with _alive():
        while not wait([future], timeout=1).done:  # on Windows Ctrl-C is seen between two waits only
            pass
        return future.result()


@contextlib.contextmanager
def _alive():
    try:
        yield
    except BrokenProcessPool:
        message = "a process that plays has been killed (out of memory?); --resume goes on from the last save"
        raise UserError(message) from None


@contextlib.contextmanager
def _ctrl_c_waits():
    """Ctrl-C goes to every process of a terminal: the ones that start now inherit its being blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _pool(count: int, env_id: str, seeds: list[int]) -> ProcessPoolExecutor:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # theirs: NumPy's threads would take the other players' cores
    return ProcessPoolExecutor(count, get_context("spawn"), initializer=_start, initargs=(env_id, seeds))


def _start(env_id: str, seeds: list[int]) -> None:
    """What each process does first."""
    global seats
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that trains decides; on Windows nothing was inherited
    threading.Thread(target=_end_with_parent, daemon=True).start()
    seats = [Seat(env_id, seed) for seed in seeds]
    atexit.register(globals().pop, "seats")  # that thread would keep it, and Pong's emulator complains if it is kept


def _end_with_parent() -> None:
    """A parent that was killed could not say goodbye; without this its players would wait for ever."""
    parent_process().join()
    os._exit(1)


class Seat:
    """An environment, the state that it is in, and the random numbers of who plays there."""

    def __init__(self, env_id: str, seed: int):
        self.env = environments.make(env_id, seed)
        self.begin(seed)

    def begin(self, seed: int | None = None) -> None:
        """A new episode; seed: and with it the random numbers of environment and player."""
        if seed is not None:
            self.rng = np.random.default_rng([seed, 1])  # not the stream that the environment makes of the seed
        self.state, _ = self.env.reset(seed=seed)
        self.reward, self.length, self.over = 0.0, 0, False

    def play(self, policy: MLP, most: float = np.inf, std: np.ndarray | None = None) -> Path:
        """At most so many steps."""
        if self.over:
            self.begin()
        states, actions, rewards = [], [], []
        while not self.over and len(states) < most:
            output = policy(self.state)
            if std is None:
                action = int(sample(output, self.rng))
            else:
                action = output + std * self.rng.standard_normal(output.shape, np.float32)
            states.append(kept(self.state))
            self.state, reward, terminated, truncated, _ = self.env.step(action)
            actions.append(action)
            rewards.append(float(reward))
            self.over = terminated or truncated
        self.reward, self.length = self.reward + sum(rewards), self.length + len(rewards)
        episode = (self.reward, self.length) if self.over else None
        return Path(np.array(states), actions, rewards, self.state, terminated, episode)


def _play(policy: MLP, seed: int) -> Path:
    """An episode of its own."""
    seats[0].begin(int(seed))
    return seats[0].play(policy)


def _play_on(policy: MLP, steps: int, std: np.ndarray | None) -> list[Path]:
    """So many steps in each environment of this process."""
    paths = []
    for seat in seats:
        left = steps
        while left:
            paths.append(seat.play(policy, left, std))
            left -= len(paths[-1].rewards)
    return paths
