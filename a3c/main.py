"""A3C, section 5.6 of the book.

python a3c/main.py --train          learn BipedalWalker, save the weights and the curve
python a3c/main.py --test           play with them
python a3c/main.py --train --ray    learn with workers in processes of their own
"""

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, nothing to install
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for NumPy: workers are threads enough

from common import command, environments
from common.command import Count, Fraction, NotNegative, Positive
from common.loading import loading


@dataclass(frozen=True)
class Config(command.Options):
    """Asynchronous advantage actor-critic (section 5.6), by default on BipedalWalker-v3."""

    env: str = "BipedalWalker-v3"
    steps: Count | None = 15_000_000
    """Stop training when the episodes that have ended have so many steps, of all workers together."""
    workers: Count = os.cpu_count() or 1
    """Threads (with --ray: processes), each with an environment of its own."""
    ray: str | None = None
    """Run the workers as Ray actors: on this machine (--ray alone), or on the cluster at host:port."""
    n_steps: Count = 80
    """L of Algorithm 5.21: steps that a worker takes between two of its updates."""
    gamma: Fraction = 0.99
    """Discount of rewards."""
    gae_lambda: Fraction = 0.95
    """Decay of the advantage estimate; 0 is the one-step advantage of Algorithm 5.21, 1 the listing's of L steps."""
    lr_a: Positive = 4e-4
    """Learning rate of the actor."""
    lr_c: Positive = 4e-4
    """Learning rate of the critic."""
    end_lr: Fraction = 0.0
    """The part of both learning rates that is left at the end of --steps, if given; they fall linearly."""
    entropy: NotNegative = 1e-3
    """Weight of the policy's entropy, which keeps it exploring."""
    max_grad_norm: Positive = 0.5
    """Longer gradients are shortened to it."""
    mean: Literal["linear", "tanh"] = "linear"
    """Of the Gaussian policy; tanh keeps it within the actions' bounds."""
    log_std: float = -1.0
    """Logarithm of the Gaussian policy's deviation at the start."""
    max_log_std: float = -0.5
    """Logarithm of that deviation at most, throughout the training."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    reset_at_points: bool = False
    """A reward other than 0 ends a path: what comes after the point was not its doing (Pong)."""
    no_normalising: bool = False
    """Take states as they are, not brought to mean 0 and deviation 1."""
    act: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers and of the convolutions."""
    convolutions: bool = False
    """Begin both networks with two layers of convolutions (pictures)."""
    filters: tuple[Count, Count] = (16, 32)
    """How many filters each of the two has."""
    hidden: tuple[Count, ...] = (128, 128)
    """Units of the hidden layers of both networks."""
    running: Fraction = 0.95
    """The part of the running reward that each episode keeps."""
    sampled: bool = False
    """Test with actions drawn from the policy, as in training, not with the likeliest."""


SMALL = dict(n_steps=40, lr_a=1e-3, lr_c=2e-3, hidden=(64, 64))
CARTPOLE = dict(steps=200_000, **SMALL)
PONG = dict(
    steps=10_000_000,
    n_steps=128,
    lr_a=7e-4,
    lr_c=7e-4,
    entropy=0.003,
    reward_scale=1.0,
    reset_at_points=True,
    no_normalising=True,
    act="relu",
    convolutions=True,
    hidden=(64,),
    running=0.99,
)
PRESETS = {
    "CartPole-v0": CARTPOLE,
    "CartPole-v1": CARTPOLE,
    "Acrobot-v1": dict(steps=100_000, **SMALL),
    "Pendulum-v1": dict(steps=600_000, gamma=0.95, mean="tanh", log_std=0.7, max_log_std=0.7, **SMALL),
    "Pong-v0": PONG,
    "PongDeterministic-v4": PONG,
    "PongPresent-v0": PONG,
}


def train(config, agent, workers):
    """Start every worker in a thread of its own, but the first, and wait for them."""
    import tensorflow as tf

    from common.progress import Training

    generators = {worker.name: worker.AC.rng for worker in workers}
    with Training(config, agent, *(worker.env for worker in workers), running=config.running, **generators) as run:
        coord = tf.train.Coordinator()
        if not run.goes_on():  # a resumed run that is over
            coord.request_stop()

        def report(episode_reward, length, updates):
            with agent.lock:
                run.log_update(*updates)
                run.log(episode_reward, length)
                if not run.goes_on():
                    coord.request_stop()

        def job(worker):
            with coord.stop_on_exception():
                worker.work(agent, coord, report)

        threads = [threading.Thread(target=job, args=(each,), name=each.name, daemon=True) for each in workers[1:]]
        for thread in threads:
            thread.start()
        try:
            job(workers[0])  # in the main thread: elsewhere macOS opens no window
            coord.join(threads)  # raises what a worker has raised
        finally:
            coord.request_stop()


def train_on_ray(config, agent, settings, workers):
    """The same with the global network and every worker in a process of its own, on one machine or many.

    settings, workers: the arguments of `ACNet` and of each `Worker`. `agent` follows the global network, to be saved.
    """
    from a3c.agent import Worker
    from common import cluster
    from common.progress import Training

    with Training(config, agent, running=config.running) as run, cluster.connect(config.ray, config.algorithm):
        fresh = [{**each, "seed": config.seed + run.steps} for each in workers]  # a resumed run does not repeat itself
        master = cluster.Master(agent, settings, Worker, fresh)
        while run.goes_on():
            for episode_reward, length, updates in master.follow(agent):
                run.log_update(*updates)
                run.log(episode_reward, length)


def test(config, agent):
    """Play with the trained weights, greedily or --sampled."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.get_action(state, greedy=not config.sampled))


def main():
    config = command.parse(Config, PRESETS)
    env = environments.make(config.env, config.seed)
    if config.convolutions:
        environments.require_pictures(env)
    with loading():  # only now: --help and a wrong flag are answered at once
        from a3c.agent import ACNet, Worker
    dimensions = dict(zip(("state_dim", "action_dim", "action_bound"), environments.dimensions(env), strict=True))
    settings = dimensions | command.keywords(config, ACNet) | dict(scope="Global_Net", total_steps=config.steps)
    agent = ACNet(**settings)
    if config.train:
        shared = command.keywords(config, ACNet) | command.keywords(config, Worker)
        workers = [{**shared, "name": f"Worker_{i}", "render": config.render and i == 0} for i in range(config.workers)]
        if config.ray:
            train_on_ray(config, agent, settings, workers)
        else:
            train(config, agent, [Worker(**each) for each in workers])
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
