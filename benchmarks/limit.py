"""How fast a row of throughput.py could go on this machine at most: what would be left of it without an agent."""

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

from common import environments


def steps_per_second(env_id: str, envs: int, processes: int, batch: int, products: dict[tuple, tuple]) -> float:
    """Of the bare environments in so many processes at once and, if there are any, the products of an update a step.

    products: {units of a network's layers: numbers of passes}, see `products_seconds`. They are shared among the cores.
    """
    seconds = 1 / sum(at_once(processes, bare_loop, env_id, envs))
    if products:
        seconds += 1 / sum(at_once(os.cpu_count() or 1, products_rate, batch, products))
    return 1 / seconds


def at_once(processes: int, function: Callable, *arguments) -> list:
    """The function's result in each of so many processes that run side by side, with one thread for NumPy."""
    with (
        mock.patch.dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
        multiprocessing.get_context("spawn").Pool(processes) as pool,
    ):
        return [each.get() for each in [pool.apply_async(function, arguments) for _ in range(processes)]]


def bare_loop(env_id: str, count: int) -> float:
    """Steps per second of `count` environments that are stepped in turn, with actions drawn before."""
    envs = [environments.make(env_id, seed) for seed in range(count)]
    actions = [envs[0].action_space.sample() for _ in range(1000)]

    def steps():
        for action in actions:
            for env in envs:
                *_, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

    return len(actions) * count / fastest(steps, 1.0)


def products_rate(batch: int, products: dict[tuple, tuple]) -> float:
    """Updates per second of the products alone."""
    return 1 / sum(products_seconds(sizes, batch, *passes) for sizes, passes in products.items())


def products_seconds(sizes: tuple, batch: int, forward: float, backward: float, through: float) -> float:
    """Seconds for the products of float32 matrices in passes through a network of dense layers, in NumPy.

    sizes: units of its layers, the input first.  forward: how many passes forward.  backward: how many to the weights
    of all layers.  through: how many to the input alone, as a policy's gradient goes through the critic.
    """
    passes = {"forward": [], "backward": [], "through": []}
    for layer, (n, m) in enumerate(itertools.pairwise(sizes)):
        x, W, g = (np.ones(shape, np.float32) for shape in ((batch, n), (n, m), (batch, m)))
        passes["forward"].append((x, W))
        passes["backward"] += [(x.T, g), *([(g, W.T)] if layer else [])]
        passes["through"].append((g, W.T))

    def multiply(pairs):
        for a, b in pairs:
            a @ b

    counts = {"forward": forward, "backward": backward, "through": through}
    return sum(count * fastest(lambda name=name: multiply(passes[name])) for name, count in counts.items())


def fastest(call: Callable, at_least: float = 0.1) -> float:
    """The shortest time of a call, in seconds: of 5 calls, or of as many as `at_least` seconds allow."""
    times = []
    while len(times) < 5 or sum(times) < at_least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
