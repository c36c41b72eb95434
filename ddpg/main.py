"""DDPG, section 6.2 of the book.

python ddpg/main.py --train         learn Pendulum, save the weights and the curve
python ddpg/main.py --test          play with them
"""

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
    """Deep deterministic policy gradient (section 6.2), by default on Pendulum-v1."""

    env: str = "Pendulum-v1"
    episodes: Count | None = 100
    """Stop training after this many episodes; --steps alone lifts this limit."""
    start_steps: Count = 500
    """Steps before the first update."""
    random_steps: Annotated[int, Range(0)] = 0
    """Random steps at the start, in place of the actor's with noise."""
    update_every: Count = 50
    """Environment steps between updates, which are then as many gradient steps."""
    gamma: Fraction = 0.98
    """Discount of rewards."""
    tau: Fraction = 0.01
    """rho of Eq. (6.7) and (6.8)."""
    lr_a: Positive = 1e-3
    """Learning rate of the actor."""
    lr_c: Positive = 1e-3
    """Learning rate of the critic."""
    end_lr: Fraction = 1.0
    """The part of both learning rates that is left at the end of --steps, if given; they fall linearly."""
    batch_size: Count = 64
    """Transitions that each gradient uses."""
    memory_capacity: Count = 100_000
    """Transitions that are kept."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    noise: Literal["gaussian", "ou"] = "gaussian"
    """Noise of exploration: independent, or the Ornstein-Uhlenbeck process of Eq. (6.1)."""
    ou_theta: Annotated[float, Range(above=0, high=1)] = 0.15
    """theta of Eq. (6.1)."""
    var: NotNegative = 0.5
    """Variance of the noise at the start, as a part of the square of the largest action."""
    var_decay: Fraction = 0.9995
    """Factor of the variance at each gradient step."""
    batch_norm: bool = False
    """Batch normalisation in the critic, before the action comes in."""
    hidden: tuple[Count, ...] = (64, 64)
    """Units of the hidden layers of all networks."""


RUNNER = dict(
    episodes=None,
    steps=1_000_000,
    start_steps=10_000,
    random_steps=10_000,
    gamma=0.99,
    tau=0.005,
    batch_size=256,
    memory_capacity=1_000_000,
    reward_scale=1.0,
    var=0.01,  # a tenth of the range, as td3 has it, to the end: a falling one is gone after some thousand steps
    var_decay=1.0,
    hidden=(256, 256),
)
ANT = RUNNER | dict(lr_a=1e-4, lr_c=3e-4)
BULLET = RUNNER | dict(steps=500_000, gamma=0.98)
PRESETS = {
    "MountainCarContinuous-v0": dict(episodes=None, steps=50_000, gamma=0.99, noise="ou", var_decay=0.9999),
    "BipedalWalker-v3": RUNNER | dict(steps=500_000, gamma=0.98, end_lr=0.0, reward_scale=0.1, hidden=(128, 128)),
    **dict.fromkeys(environments.MUJOCO, RUNNER),
    **dict.fromkeys(environments.ANTS, ANT),
    **dict.fromkeys(environments.BULLET, BULLET),
}


def train(config, agent, env):
    """Act with noise, remember every step, learn from random memories."""
    from common.progress import Training

    with Training(config, agent, env) as run:
        while run.goes_on():
            state, _ = env.reset()
            agent.reset_noise()
            episode_reward, length, done = 0.0, 0, False
            while not done:
                action = agent.sample_action() if agent.pointer < config.random_steps else agent.get_action(state)
                next_state, reward, terminated, truncated, _ = env.step(action)
                agent.store_transition(state, action, reward, next_state, terminated)
                state = next_state
                episode_reward += reward
                length += 1
                done = terminated or truncated
                if agent.pointer >= config.start_steps and agent.pointer % config.update_every == 0:
                    run.log_update(agent.learn(config.update_every))
            run.log(episode_reward, length)


def test(config, agent):
    """Play greedily with the trained weights."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.get_action(state, greedy=True))


def main():
    config = command.parse(Config, PRESETS)
    env = environments.make(config.env, config.seed, "human" if config.render else None)
    if config.batch_norm and not config.hidden:
        raise command.UserError("--batch-norm needs a hidden layer")
    environments.require_actions(env, "continuous")
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from ddpg.agent import DDPG
    state_dim, action_dim, action_range = environments.dimensions(env)
    agent = DDPG(action_dim, state_dim, action_range, **command.keywords(config, DDPG), total_steps=config.steps)
    if config.train:
        train(config, agent, env)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
