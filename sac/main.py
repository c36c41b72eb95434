"""SAC, section 6.4 of the book.

python sac/main.py --train         learn Pendulum, save the weights and the curve
python sac/main.py --test          play with them
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, nothing to install

from common import command, environments
from common.command import Count, Fraction, Positive
from common.loading import loading


@dataclass(frozen=True)
class Config(command.Options):
    """Soft actor-critic (section 6.4), by default on Pendulum-v1."""

    env: str = "Pendulum-v1"
    episodes: Count | None = 100
    """Stop training after this many episodes; --steps alone lifts this limit."""
    start_steps: Count = 500
    """Random steps before the first update."""
    update_every: Count = 50
    """Environment steps between updates, which are then as many gradient steps."""
    gamma: Fraction = 0.98
    """Discount of rewards."""
    soft_tau: Fraction = 0.01
    """Part of the way that the target critics go at each step."""
    policy_lr: Positive = 1e-3
    """Learning rate of the policy."""
    soft_q_lr: Positive = 1e-3
    """Learning rate of the critics."""
    alpha_lr: Positive = 1e-3
    """Learning rate of alpha."""
    end_lr: Fraction = 1.0
    """The part of all learning rates that is left at the end of --steps, if given; they fall linearly."""
    alpha: Positive | None = None
    """A fixed weight of the entropy; without it alpha adapts, Eq. (6.29)."""
    target_entropy: float | None = None
    """kappa of Eq. (6.29), of actions within the environment's bounds; minus their dimensions unless given."""
    batch_size: Count = 64
    """Transitions that each gradient uses."""
    replay_buffer_size: Count = 100_000
    """Transitions that are kept."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    hidden_dim: Count = 64
    """Units of each hidden layer of all networks."""


BOX2D = dict(episodes=None, start_steps=10_000, gamma=0.99, batch_size=128, hidden_dim=128, replay_buffer_size=300_000)
RUNNER = BOX2D | dict(
    steps=1_000_000,
    soft_tau=0.005,
    alpha_lr=3e-4,
    batch_size=256,
    hidden_dim=256,
    replay_buffer_size=1_000_000,
    reward_scale=1.0,
)
BULLET = BOX2D | dict(steps=1_000_000, gamma=0.98, reward_scale=1.0)
PRESETS = {
    "LunarLanderContinuous-v2": dict(steps=300_000, end_lr=0.0, **BOX2D),
    "BipedalWalker-v3": dict(steps=1_000_000, end_lr=0.0, **BOX2D),
    **dict.fromkeys(environments.MUJOCO, RUNNER),
    **dict.fromkeys(environments.BULLET, BULLET),
}


def train(config, agent, env):
    """Act by samples of the policy, remember every step, learn from random memories."""
    from common.progress import Training

    replay_buffer = agent.replay_buffer
    with Training(config, agent, env) as run:
        if config.alpha is not None:  # and not that of the run which --resume has brought back
            agent.alpha = config.alpha
        while run.goes_on():
            state, _ = env.reset()
            episode_reward, length, done = 0.0, 0, False
            while not done:
                if replay_buffer.position < config.start_steps:
                    action = agent.policy_net.sample_action()
                else:
                    action = agent.policy_net.get_action(state)
                next_state, reward, terminated, truncated, _ = env.step(action)
                replay_buffer.push(state, action, reward, next_state, terminated)
                state = next_state
                episode_reward += reward
                length += 1
                done = terminated or truncated
                if replay_buffer.position >= config.start_steps and replay_buffer.position % config.update_every == 0:
                    report = agent.update(
                        config.batch_size,
                        config.reward_scale,
                        config.alpha is None,
                        config.target_entropy,
                        config.gamma,
                        config.soft_tau,
                        config.update_every,
                    )
                    run.log_update(report)
            run.log(episode_reward, length)


def test(config, agent):
    """Play greedily with the trained weights."""
    from common.playing import play, weights_folder

    agent.load(weights_folder(config))
    return play(config, lambda state: agent.policy_net.get_action(state, greedy=True))


def main():
    config = command.parse(Config, PRESETS)
    env = environments.make(config.env, config.seed, "human" if config.render else None)
    environments.require_actions(env, "continuous")
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from sac.agent import SAC, ReplayBuffer
    state_dim, action_dim, action_range = environments.dimensions(env)
    replay_buffer = ReplayBuffer(config.replay_buffer_size)
    settings = command.keywords(config, SAC) | dict(total_steps=config.steps)
    agent = SAC(state_dim, action_dim, replay_buffer, action_range=action_range, **settings)
    if config.train:
        train(config, agent, env)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
