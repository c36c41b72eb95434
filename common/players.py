"""Several processes that play whole episodes at the same time."""

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import NamedTuple

import numpy as np

from common import environments
from common.acting import MLP, sample
from common.command import UserError
from common.pixels import pack


class Episode(NamedTuple):
    """One episode; states: those acted on, pictures packed as `common.pixels` does, [steps, ...]."""

    states: np.ndarray
    actions: list[int]
    rewards: list[float]
    last_state: np.ndarray
    terminated: bool


class Players:
    """`count` processes, each with its own environment `env_id`; to be used in a `with` statement.

    An episode depends on its policy and its seed only, and episodes come back in the order of their seeds:
    neither the number of processes nor their speed changes a result. The processes are spawned (a fork of
    one in which TensorFlow runs may hang) and never load TensorFlow.
    """

    def __init__(self, env_id: str, count: int):
        self.pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start, initargs=(env_id,))

    def play(self, policy: MLP, seeds: Iterable[int]) -> Iterator[Episode]:
        """One episode for each seed, with actions sampled from softmax(policy(state)).

        Raises UserError if a process was ended from outside.
        """
        with _ctrl_c_waits():
            episodes = [self.pool.submit(_play, policy, seed) for seed in seeds]
        return self._results(episodes)

    def _results(self, episodes):
        try:
            for episode in episodes:
                yield episode.result()
        except BrokenProcessPool:
            raise UserError("a process that plays has been killed (out of memory?); --resume goes on") from None

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:
            for process in active_children():
                process.terminate()
        self.pool.shutdown()  # no episode is cancelled: Python 3.11's pool may print a traceback where one was


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


def _start(env_id: str) -> None:
    """What each process does first."""
    global env
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that trains decides; on Windows nothing was inherited
    threading.Thread(target=_end_with_parent, daemon=True).start()
    env = environments.make(env_id, seed=0)
    atexit.register(globals().pop, "env")  # that thread would keep it, and Pong's emulator complains if it is kept


def _end_with_parent() -> None:
    """A parent that was killed could not say goodbye; without this its players would wait for ever."""
    parent_process().join()
    os._exit(1)


def _play(policy: MLP, seed: int) -> Episode:
    rng = np.random.default_rng([seed, 1])  # not the stream that the environment makes of the seed
    state, _ = env.reset(seed=int(seed))
    states, actions, rewards = [], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = int(sample(policy(state), rng))
        states.append(pack(state) if state.dtype == np.int8 else state)
        state, reward, terminated, truncated, _ = env.step(action)
        actions.append(action)
        rewards.append(float(reward))
    return Episode(np.array(states), actions, rewards, state, terminated)
