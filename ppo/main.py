"""PPO, section 5.8 of the book.

python ppo/main.py --train                  learn Pendulum, save the weights and the curve
python ppo/main.py --test                   play with them
python ppo/main.py --train --env Pong-v0    learn Pong from its pictures: an hour
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
    """Proximal policy optimisation (section 5.8), by default on Pendulum-v1."""

    env: str = "Pendulum-v1"
    steps: Count | None = 120_000
    """Stop training at the end of the episode (with --workers: the batch) in which so many steps are reached."""
    method: Literal["clip", "penalty"] = "clip"
    """clip: Algorithm 5.24, penalty: Algorithm 5.23."""
    batch_size: Count = 2048
    """Steps between two updates (with --workers rounded down to a multiple of --environments)."""
    workers: Annotated[int, Range(0)] = 0
    """Processes in which --environments are played side by side; 0: one is played in this process."""
    environments: Count = 8
    """With --workers: how many environments, of which each takes its share of the batch."""
    gamma: Fraction = 0.98
    """Discount of rewards."""
    gae_lambda: Fraction = 0.9
    """Decay of the advantage estimate; 1 is the book's sum of all rewards to come."""
    lr_a: Positive = 1e-3
    """Learning rate of the actor."""
    lr_c: Positive = 2e-3
    """Learning rate of the critic."""
    end_lr: Fraction = 0.0
    """The part of both learning rates that is left at the end of --steps, if given; they fall linearly."""
    entropy: NotNegative = 0.0
    """Weight of the policy's entropy, which keeps it exploring."""
    a_update_epochs: Count = 10
    """M of the algorithms, in passes over the batch."""
    c_update_epochs: Count = 10
    """B of the algorithms, in passes over the batch."""
    minibatch_size: Count = 128
    """Steps that each gradient uses."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    reset_at_points: bool = False
    """A reward other than 0 ends a path: what comes after the point was not its doing (Pong)."""
    epsilon: Positive = 0.2
    """Clip range of Eq. (5.38)."""
    kl_target: Positive = 0.01
    """d_target of Algorithm 5.23."""
    lam: Positive = 0.5
    """lambda of Eq. (5.37) at the start; it adapts."""
    mean: Literal["linear", "tanh"] = "linear"
    """Of the Gaussian policy; tanh, the book's, keeps it within the actions' bounds."""
    log_std: float = 0.0
    """Logarithm of the Gaussian policy's deviation at the start."""
    normalising: bool = False
    """Bring states to mean 0 and deviation 1 (not pictures)."""
    act: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers, where relu is the book's, and of the convolutions."""
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


CARTPOLE = dict(steps=60_000, batch_size=512, gae_lambda=0.95, lr_a=2e-3, lr_c=4e-3, minibatch_size=64)
PONG = dict(
    steps=18_000_000,
    batch_size=16_384,
    workers=os.cpu_count() or 1,
    gamma=0.99,
    gae_lambda=0.95,
    lr_a=7e-4,
    lr_c=7e-4,
    a_update_epochs=4,
    c_update_epochs=4,
    minibatch_size=1024,
    reward_scale=1.0,
    reset_at_points=True,
    entropy=0.01,
    act="relu",
    hidden=(200,),
    running=0.99,
)
PRESENT = PONG | dict(
    steps=10_500_000,
    batch_size=8192,
    lr_c=1e-3,
    a_update_epochs=3,
    c_update_epochs=1,
    minibatch_size=512,
    convolutions=True,
    filters=(8, 16),
    hidden=(128,),
)
WALKER = dict(
    steps=4_000_000,
    batch_size=8192,
    workers=os.cpu_count() or 1,
    environments=16,
    gamma=0.99,
    gae_lambda=0.95,
    lr_a=3e-4,
    lr_c=1e-3,
    minibatch_size=256,
    log_std=-0.5,
    normalising=True,
    hidden=(128, 128),
)
LANDER = WALKER | dict(steps=1_500_000, reward_scale=0.05, hidden=(64, 64))
RUNNER = WALKER | dict(
    steps=5_000_000,
    batch_size=4096,
    environments=8,
    lr_a=2e-4,
    entropy=0.002,
    reward_scale=0.02,
)
ANT = RUNNER | dict(log_std=-1.5)
BULLET = RUNNER | dict(steps=3_000_000, reward_scale=0.05)
PRESETS = {
    "CartPole-v0": CARTPOLE,
    "CartPole-v1": CARTPOLE,
    "Acrobot-v1": dict(steps=100_000),
    "LunarLander-v2": LANDER,
    "LunarLanderContinuous-v2": LANDER,
    "BipedalWalker-v3": WALKER,
    **dict.fromkeys(environments.MUJOCO, RUNNER),
    **dict.fromkeys(environments.ANTS, ANT),
    **dict.fromkeys(environments.BULLET, BULLET),
    "AntBulletEnv-v0": BULLET | dict(steps=5_000_000),
    "Pong-v0": PONG,
    "PongDeterministic-v4": PONG,
    "PongPresent-v0": PRESENT,
}


def train(config, agent, env):
    """Collect a batch with the current policy, update, repeat."""
    from common.progress import Training

    with Training(config, agent, env, running=config.running) as run:
        while run.goes_on():
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
                if len(agent.state_buffer) >= config.batch_size:
                    agent.finish_path(state, terminated)
                    run.log_update(agent.update())
            agent.finish_path(state, terminated)
            run.log(episode_reward, length)


def train_side_by_side(config, agent, env):
    """The same with several environments at a time, in processes that play."""
    from common.players import Tables
    from common.progress import Training

    seeds = agent.rng.integers(2**31, size=config.environments).tolist()
    with (
        Training(config, agent, env, running=config.running) as run,
        Tables(config.env, [seed + run.steps for seed in seeds], config.workers) as players,
    ):
        while run.goes_on():
            for path in players.play(agent.policy, config.batch_size // config.environments, agent.std):
                for transition in zip(path.states, path.actions, path.rewards, strict=True):
                    agent.store_transition(*transition)
                agent.finish_path(path.next_state, path.terminated)
                if path.episode:
                    run.log(*path.episode)
            run.log_update(agent.update())


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
    if config.normalising:
        environments.require_numbers(env, "--normalising")
    if config.convolutions:
        environments.require_pictures(env)
    if config.workers and config.batch_size < config.environments:
        raise command.UserError("--batch-size must be at least --environments: each takes its share of the batch")
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from ppo.agent import PPO
    agent = PPO(*environments.dimensions(env), **command.keywords(config, PPO), total_steps=config.steps)
    if config.train:
        (train_side_by_side if config.workers else train)(config, agent, env)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
