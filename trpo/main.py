"""TRPO, section 5.7 of the book.

python trpo/main.py --train          learn Pendulum, save the weights and the curve
python trpo/main.py --test           play with them
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, nothing to install

from common import command, environments
from common.command import Count, Fraction, NotNegative, Positive, Range
from common.loading import loading


@dataclass(frozen=True)
class Config(command.Options):
    """Trust region policy optimisation (section 5.7), by default on Pendulum-v1."""

    env: str = "Pendulum-v1"
    steps: Count | None = 150_000
    """Stop training at the end of the episode (with --workers: the batch) in which so many steps are reached."""
    batch_size: Count = 2048
    """Steps between two updates."""
    workers: Annotated[int, Range(0)] = 0
    """Processes in which --environments are played side by side; 0: one is played in this process."""
    environments: Count = 8
    """With --workers: how many environments, of which each takes its share of the batch."""
    gamma: Fraction = 0.95
    """Discount of rewards."""
    gae_lambda: Fraction = 0.95
    """Decay of the advantage estimate; 1 is the sum of all rewards to come."""
    delta: Positive = 0.02
    """Largest mean KL divergence between the policies before and after an update, Eq. (5.26), at the start."""
    cg_iters: Count = 10
    """Steps of the conjugate gradient, Eq. (5.32)."""
    damping: NotNegative = 0.1
    """What is added to the diagonal of H."""
    backtrack_iters: Count = 10
    """K of Algorithm 5.22."""
    backtrack_coeff: Fraction = 0.8
    """alpha of Algorithm 5.22."""
    lr_c: Positive = 1e-3
    """Learning rate of the critic."""
    end_lr: Fraction = 0.0
    """The part of delta and of the learning rate that is left at the end of --steps, if given; they fall linearly."""
    c_update_epochs: Count = 10
    """Passes over the batch to fit the critic."""
    minibatch_size: Count = 64
    """Steps that each gradient of the critic uses."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    mean: Literal["linear", "tanh"] = "linear"
    """Of the Gaussian policy; tanh, the book's, keeps it within the actions' bounds."""
    log_std: float = 0.0
    """Logarithm of the Gaussian policy's deviation at the start."""
    normalising: bool = False
    """Bring states to mean 0 and deviation 1."""
    hidden: tuple[Count, ...] = (64, 64)
    """Units of the hidden layers of both networks."""


CARTPOLE = dict(gamma=0.98, steps=60_000)
WALKER = dict(steps=3_000_000, batch_size=4096, gamma=0.99, log_std=-0.5, normalising=True)
RUNNER = WALKER | dict(
    steps=5_000_000,
    batch_size=2048,
    workers=os.cpu_count() or 1,
    environments=16,
    delta=0.03,
    minibatch_size=256,
    log_std=-1.0,
    reward_scale=0.02,
    hidden=(128, 128),
)
BULLET = RUNNER | dict(steps=3_000_000, workers=0, minibatch_size=64, log_std=-0.5, reward_scale=0.05)
PRESETS = {
    "CartPole-v0": CARTPOLE,
    "CartPole-v1": CARTPOLE,
    "Acrobot-v1": dict(gamma=0.99, steps=100_000),
    "BipedalWalker-v3": WALKER,
    **dict.fromkeys(environments.MUJOCO, RUNNER),
    **dict.fromkeys(environments.BULLET, BULLET),
    "AntBulletEnv-v0": BULLET | dict(steps=5_000_000, delta=0.01),
}


def train(config, agent, env):
    """Collect a batch with the current policy, update, repeat."""
    from common.progress import Training

    with Training(config, agent, env) as run:
        while run.goes_on():
            state, _ = env.reset()
            episode_reward, length, done = 0.0, 0, False
            while not done:
                action = agent.act(state)
                next_state, reward, terminated, truncated, _ = env.step(action)
                agent.buf.store(state, action, reward)
                state = next_state
                episode_reward += reward
                length += 1
                done = terminated or truncated
                if agent.buf.is_full():
                    agent.finish_path(terminated, state)
                    run.log_update(agent.update())
            agent.finish_path(terminated, state)
            run.log(episode_reward, length)


def train_side_by_side(config, agent, env):
    """The same with several environments at a time, in processes that play."""
    from common.players import Tables
    from common.progress import Training

    seeds = agent.rng.integers(2**31, size=config.environments).tolist()
    with (
        Training(config, agent, env) as run,
        Tables(config.env, [seed + run.steps for seed in seeds], config.workers) as players,
    ):
        agent.buf.clear()  # a resumed run of one process may have left half a batch
        while run.goes_on():
            for path in players.play(agent.policy, config.batch_size // config.environments, agent.std):
                for transition in zip(path.states, path.actions, path.rewards, strict=True):
                    agent.buf.store(*transition)
                agent.finish_path(path.terminated, path.next_state)
                if path.episode:
                    run.log(*path.episode)
            run.log_update(agent.update())


def test(config, agent):
    """Play greedily with the trained weights."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.act(state, greedy=True))


def main():
    config = command.parse(Config, PRESETS)
    if config.render and config.workers:
        raise command.UserError("--render shows what this process plays, and others play: give --workers 0 too")
    if config.workers and config.batch_size % config.environments:
        raise command.UserError("--batch-size must be a multiple of --environments: each takes its share of the batch")
    env = environments.make(config.env, config.seed, "human" if config.render else None)
    if config.workers:
        environments.require_numbers(env, "--workers")
    with loading():  # only now: --help and a wrong flag are answered at once
        from trpo.agent import TRPO
    agent = TRPO(*environments.dimensions(env), **command.keywords(config, TRPO), total_steps=config.steps)
    if config.train:
        (train_side_by_side if config.workers else train)(config, agent, env)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
