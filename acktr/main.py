"""ACKTR, section 5.9 of the book.

python acktr/main.py --train    learn CartPole, save the weights and the curve
python acktr/main.py --test     play with them
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, nothing to install

from common import command, environments
from common.command import Count, Fraction, NotNegative, Positive
from common.loading import loading


@dataclass(frozen=True)
class Config(command.Options):
    """Actor-critic with a Kronecker-factored trust region (section 5.9), by default on CartPole-v1."""

    env: str = "CartPole-v1"
    steps: Count | None = 80_000
    """Stop training when the episodes that have ended have so many steps, of all workers together."""
    workers: Count = 16
    """Environments that act side by side, in this process."""
    n_steps: Count = 20
    """Steps that each worker takes between two updates."""
    gamma: Fraction = 0.99
    """Discount of rewards."""
    gae_lambda: Fraction = 0.95
    """Decay of the advantage estimate."""
    eta_max: Positive = 1.0
    """The longest step of Eq. (5.43), in natural gradients."""
    delta: Positive = 0.005
    """About the largest mean KL divergence between the policies before and after an update."""
    delta_c: Positive = 0.1
    """The same for a step of the critic: half the mean squared change of its values."""
    c_update_epochs: Count = 2
    """Steps of the critic an update."""
    end_lr: Fraction = 0.0
    """The part of both deltas that is left at the end of --steps, if given; they fall linearly."""
    damping: Positive = 1e-3
    """Added to the diagonal of the Fisher matrix before it is inverted."""
    decay: Fraction = 0.95
    """The part of the averages A and S that a step keeps."""
    refresh: Count = 5
    """The inverses of A and S are computed anew every so many updates."""
    entropy: NotNegative = 0.0
    """Weight of the policy's entropy, which keeps it exploring."""
    mean: Literal["linear", "tanh"] = "linear"
    """Of the Gaussian policy; tanh keeps it within the actions' bounds."""
    log_std: float = 0.0
    """Logarithm of the Gaussian policy's deviation at the start."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    no_normalising: bool = False
    """Take states as they are, not brought to mean 0 and deviation 1."""
    hidden: tuple[Count, ...] = (64, 64)
    """Units of the hidden layers of both networks."""


WALKER = dict(steps=4_000_000, n_steps=64, delta=0.01, c_update_epochs=5, log_std=-0.5, hidden=(128, 128))
RUNNER = WALKER | dict(steps=5_000_000, log_std=-1.0)
BULLET = WALKER | dict(steps=3_000_000)
PRESETS = {
    "Acrobot-v1": dict(steps=100_000, n_steps=64, delta=0.002),
    "Pendulum-v1": dict(steps=150_000, gamma=0.95, delta=0.01, mean="tanh", log_std=0.7),
    "BipedalWalker-v3": WALKER,
    **dict.fromkeys(environments.MUJOCO, RUNNER),
    **dict.fromkeys(environments.BULLET, BULLET),
}


def train(config, agent, envs):
    """Collect L steps from every worker, update, repeat."""
    from acktr.agent import Worker
    from common.progress import Training

    worker = Worker(envs)
    with Training(config, agent, worker=worker) as run:
        while run.goes_on():
            *batch, episodes = worker.collect(agent, config.n_steps)
            run.log_update(agent.update(*batch))
            for episode_reward, length in episodes:
                run.log(episode_reward, length)


def test(config, agent):
    """Play greedily with the trained weights."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.get_action(state, greedy=True))


def main():
    config = command.parse(Config, PRESETS)
    seeds = [config.seed + 1000 * w for w in range(config.workers)]
    envs = [environments.make(config.env, config.seed, "human" if config.render else None)]
    if config.train:
        envs += [environments.make(config.env, seed) for seed in seeds[1:]]
    environments.require_numbers(envs[0], "ACKTR, whose factors of a picture would have 41 million numbers each,")
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from acktr.agent import ACKTR
    agent = ACKTR(*environments.dimensions(envs[0]), **command.keywords(config, ACKTR), total_steps=config.steps)
    if config.train:
        train(config, agent, envs)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
