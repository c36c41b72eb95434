"""REINFORCE, section 5.2 of the book.

python reinforce/main.py --train                  learn CartPole, save the weights and the curve
python reinforce/main.py --test                   play with them
python reinforce/main.py --train --env Pong-v0    learn Pong from its pictures: two hours
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
    """REINFORCE (section 5.2), by default on CartPole-v1."""

    env: str = "CartPole-v1"
    steps: Count | None = 150_000
    """Stop training at the end of the episode (with --workers: the batch) in which so many steps are reached."""
    solved: float | None = 495.0
    """Stop once the running reward reaches this."""
    batch_size: Count = 4
    """B of Algorithm 5.18: trajectories an update."""
    workers: Annotated[int, Range(0)] = 0
    """Processes that play the batch's episodes side by side; 0: this one plays them one by one, and can --render."""
    gamma: Fraction = 0.99
    """Discount of rewards."""
    gamma_t: bool = False
    """Weight step t by gamma^t, as Eq. (5.2) has it and practice has not."""
    baseline: Literal["none", "normalise", "value"] = "normalise"
    """b of Eq. (5.3); none: 0, value: V(s). normalise: no b, but the batch's returns to mean 0 and deviation 1."""
    learning_rate: Positive = 0.02
    """Learning rate of the policy."""
    lr_c: Positive = 1e-2
    """Learning rate of the value baseline."""
    end_lr: Fraction = 1.0
    """The part of both learning rates that is left at the end of --steps, if given; they fall linearly."""
    entropy: NotNegative = 0.0
    """Weight of the policy's entropy, which keeps it exploring."""
    c_update_epochs: Count = 20
    """Gradient steps of the value baseline an update."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    reset_at_points: bool = False
    """A reward other than 0 ends a path: what comes after the point was not its doing (Pong)."""
    act: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers."""
    hidden: tuple[Count, ...] = (32,)
    """Units of the hidden layers of both networks."""
    running: Fraction = 0.9
    """The part of the running reward that each episode keeps."""
    sampled: bool = False
    """Test with actions drawn from the policy, as in training, not with the likeliest."""


PONG = dict(
    steps=40_000_000,
    solved=None,
    batch_size=2,
    workers=os.cpu_count() or 1,
    baseline="value",
    learning_rate=1.5e-3,
    lr_c=3e-3,
    end_lr=0.0,
    entropy=3e-3,
    c_update_epochs=4,
    reward_scale=1.0,
    reset_at_points=True,
    act="relu",
    hidden=(200,),
    running=0.99,
)
PRESETS = {
    "CartPole-v1": dict(entropy=0.01),  # without it one seed of 21 was solved sampling and fell at 360 greedily
    "CartPole-v0": dict(entropy=0.01, solved=195.0),
    "Acrobot-v1": dict(steps=100_000, solved=None),
    "Pong-v0": PONG,
    "PongDeterministic-v4": PONG,
    "PongPresent-v0": PONG,
}


def train(config, agent, env):
    """Play a batch of episodes with the current policy, update, repeat."""
    from common.progress import Training

    with Training(config, agent, env, running=config.running) as run:
        while run.goes_on(config.solved):
            state, _ = env.reset()
            episode_reward, length, done = 0.0, 0, False
            while not done:
                action = agent.get_action(state)
                next_state, reward, terminated, truncated, _ = env.step(action)
                agent.store_transition(state, action, reward)
                state = next_state
                episode_reward += reward
                length += 1
                done = terminated or truncated
            agent.finish_path(state, terminated)
            if (run.episode + 1) % config.batch_size == 0:
                run.log_update(agent.learn())
            run.log(episode_reward, length)


def train_side_by_side(config, agent, env):
    """The same with several processes that play: a batch of whole episodes with one policy, update, repeat."""
    from common.players import Players
    from common.progress import Training

    with (
        Training(config, agent, env, best_of=config.batch_size, running=config.running) as run,
        Players(config.env, min(config.workers, config.batch_size)) as players,
    ):
        while run.goes_on(config.solved):
            seeds = agent.rng.integers(2**31, size=config.batch_size)
            for path in players.play(agent.policy, seeds):
                for transition in zip(path.states, path.actions, path.rewards, strict=True):
                    agent.store_transition(*transition)
                agent.finish_path(path.next_state, path.terminated)
                run.log(*path.episode)
            run.log_update(agent.learn())


def test(config, agent):
    """Play with the trained weights, greedily or --sampled."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.get_action(state, greedy=not config.sampled))


def main():
    config = command.parse(Config, PRESETS)
    if config.render and config.workers:
        raise command.UserError("--render shows what this process plays, and others play: give --workers 0 too")
    env = environments.make(config.env, config.seed, "human" if config.render else None)
    environments.require_actions(env, "discrete")
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from reinforce.agent import PolicyGradient
    state_dim, action_num, _ = environments.dimensions(env)
    agent = PolicyGradient(state_dim, action_num, **command.keywords(config, PolicyGradient), total_steps=config.steps)
    if config.train:
        (train_side_by_side if config.workers else train)(config, agent, env)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
