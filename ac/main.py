"""Actor-Critic, section 5.3 of the book.

python ac/main.py --train          learn CartPole, save the weights and the curve
python ac/main.py --test           play with them
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, nothing to install

from common import command, environments
from common.command import Count, Fraction, Positive
from common.loading import loading


@dataclass(frozen=True)
class Config(command.Options):
    """Actor-Critic (section 5.3), by default on CartPole-v1."""

    env: str = "CartPole-v1"
    steps: Count | None = 45_000
    """Stop training at the end of the episode in which this many environment steps are reached."""
    solved: float | None = 475.0
    """Stop once the running reward reaches this."""
    n_steps: Count = 16
    """L of Eq. (5.7) and (5.10); 1 is the TD(0) error of Algorithm 5.19."""
    gamma: Fraction = 0.98
    """Discount of rewards."""
    critic: Literal["v", "q", "expected-q"] = "v"
    """v: V(s), q: Eq. (5.11) and (5.12), expected-q: Eq. (5.11) and (5.13)."""
    lr_a: Positive = 5e-4
    """Learning rate of the actor."""
    lr_c: Positive = 2e-3
    """Learning rate of the critic."""
    end_lr: Fraction = 0.0
    """The part of both learning rates that is left at the end of --steps, if given; they fall linearly."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    hidden: tuple[Count, ...] = (64,)
    """Units of the hidden layers of both networks."""


PRESETS = {"CartPole-v0": dict(solved=195.0), "Acrobot-v1": dict(steps=100_000, solved=None)}


def train(config, agent, env):
    """Take a step, update, repeat."""
    from common.progress import Training

    with Training(config, agent, env) as run:
        while run.goes_on(config.solved):
            state, _ = env.reset()
            episode_reward, length, done = 0.0, 0, False
            while not done:
                action = agent.get_action(state)
                next_state, reward, terminated, truncated, _ = env.step(action)
                run.log_update(*agent.learn(state, action, reward, next_state, terminated, truncated))
                state = next_state
                episode_reward += reward
                length += 1
                done = terminated or truncated
            run.log(episode_reward, length)


def test(config, agent):
    """Play greedily with the trained weights."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.get_action(state, greedy=True))


def main():
    config = command.parse(Config, PRESETS)
    env = environments.make(config.env, config.seed, "human" if config.render else None)
    environments.require_actions(env, "discrete")
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from ac.agent import ActorCritic
    state_dim, action_num, _ = environments.dimensions(env)
    agent = ActorCritic(state_dim, action_num, **command.keywords(config, ActorCritic), total_steps=config.steps)
    if config.train:
        train(config, agent, env)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
