"""A2C, section 5.5 of the book.

python a2c/main.py --train                        learn CartPole, save the weights and the curve
python a2c/main.py --test                         play with them
python a2c/main.py --train --ray                  learn with workers in processes of their own
python a2c/main.py --train --env Pong-v0 --ray    learn Pong from its pictures: two hours on two cores
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, nothing to install
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for NumPy: a few pictures at a time are done before threads agree

from common import command, environments
from common.command import Count, Fraction, NotNegative, Positive
from common.loading import loading


@dataclass(frozen=True)
class Config(command.Options):
    """Synchronous advantage actor-critic (section 5.5), by default on CartPole-v1."""

    env: str = "CartPole-v1"
    steps: Count | None = 200_000
    """Stop training when the episodes that have ended have so many steps, of all workers together."""
    workers: Count = 8
    """W of Algorithm 5.20: environments that act side by side, in this process (with --ray in others)."""
    ray: str | None = None
    """Spread the workers over Ray actors: on this machine (--ray alone), or on the cluster at host:port."""
    n_steps: Count = 8
    """L of Algorithm 5.20: steps that each worker takes between two updates."""
    gamma: Fraction = 0.98
    """Discount of rewards."""
    gae_lambda: Fraction = 0.95
    """Decay of the advantage estimate; 0 is the book's one-step advantage."""
    lr_a: Positive = 1e-3
    """Learning rate of the actor."""
    lr_c: Positive = 2e-3
    """Learning rate of the critic."""
    end_lr: Fraction = 1.0
    """The part of both learning rates that is left at the end of --steps, if given; they fall linearly."""
    entropy: NotNegative = 0.0
    """Weight of the policy's entropy, which keeps it exploring."""
    max_grad_norm: Positive = 0.5
    """Longer gradients are shortened to it."""
    mean: Literal["linear", "tanh"] = "linear"
    """Of the Gaussian policy; tanh keeps it within the actions' bounds."""
    log_std: float = 0.0
    """Logarithm of the Gaussian policy's deviation at the start."""
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
    hidden: tuple[Count, ...] = (64, 64)
    """Units of the hidden layers of both networks."""
    running: Fraction = 0.9
    """The part of the running reward that each episode keeps."""
    sampled: bool = False
    """Test with actions drawn from the policy, as in training, not with the likeliest."""


RUNNER = dict(steps=10_000_000, workers=16, n_steps=16, gamma=0.99, lr_a=7e-4, lr_c=7e-4, end_lr=0.0, log_std=-1.0)
BULLET = RUNNER | dict(steps=6_000_000, log_std=-0.5)
PONG = dict(
    steps=18_000_000,
    workers=16,
    n_steps=16,
    gamma=0.99,
    lr_a=1e-3,
    lr_c=1e-3,
    end_lr=0.0,
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
    "Acrobot-v1": dict(steps=100_000),
    "Pendulum-v1": dict(steps=600_000, gamma=0.95, end_lr=0.0, mean="tanh", log_std=0.7),
    "BipedalWalker-v3": RUNNER | dict(steps=5_000_000),
    **dict.fromkeys(environments.MUJOCO, RUNNER),
    **dict.fromkeys(environments.BULLET, BULLET),
    "Pong-v0": PONG,
    "PongDeterministic-v4": PONG,
    "PongPresent-v0": PONG | dict(steps=12_000_000, workers=8, n_steps=32),
}


def train(config, agent, envs):
    """Collect L steps from every worker, update, repeat."""
    from a2c.agent import Worker
    from common.progress import Training

    worker = Worker(envs)
    with Training(config, agent, worker=worker, running=config.running) as run:
        while run.goes_on():
            *batch, episodes = worker.collect(agent, config.n_steps)
            run.log_update(agent.update(*batch))
            for episode_reward, length in episodes:
                run.log(episode_reward, length)


def train_on_ray(config, agent, seeds):
    """The same with workers in processes of their own, on one machine or many; the master waits for all of them."""
    from a2c.agent import Worker
    from common import cluster
    from common.progress import Training

    with Training(config, agent, running=config.running) as run, cluster.connect(config.ray, config.algorithm):
        fresh = [seed + run.steps for seed in seeds]  # a resumed run does not repeat itself
        worker = cluster.RemoteWorker(Worker, type(agent), command.keywords(config, type(agent)), config.env, fresh)
        while run.goes_on():
            *batch, episodes = worker.collect(agent, config.n_steps)
            run.log_update(agent.update(*batch))
            for episode_reward, length in episodes:
                run.log(episode_reward, length)


def test(config, agent):
    """Play with the trained weights, greedily or --sampled."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.get_action(state, greedy=not config.sampled))


def main():
    config = command.parse(Config, PRESETS)
    seeds = [config.seed + 1000 * w for w in range(config.workers)]
    envs = [environments.make(config.env, config.seed, "human" if config.render else None)]
    if config.train and not config.ray:
        envs += [environments.make(config.env, seed) for seed in seeds[1:]]
    if config.convolutions:
        environments.require_pictures(envs[0])
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from a2c.agent import A2C
    agent = A2C(*environments.dimensions(envs[0]), **command.keywords(config, A2C), total_steps=config.steps)
    if config.train and config.ray:
        train_on_ray(config, agent, seeds)
    elif config.train:
        train(config, agent, envs)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
