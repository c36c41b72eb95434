"""TD3, section 6.3 of the book.

python td3/main.py --train         learn Pendulum, save the weights and the curve
python td3/main.py --test          play with them
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, nothing to install

from common import command, environments
from common.command import Count, Fraction, NotNegative, Positive
from common.loading import loading


@dataclass(frozen=True)
class Config(command.Options):
    """Twin delayed DDPG (section 6.3), by default on Pendulum-v1."""

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
    """rho of Algorithm 6.27."""
    policy_lr: Positive = 1e-3
    """Learning rate of the policy."""
    q_lr: Positive = 1e-3
    """Learning rate of the critics."""
    end_lr: Fraction = 1.0
    """The part of both learning rates that is left at the end of --steps, if given; they fall linearly."""
    batch_size: Count = 64
    """Transitions that each gradient uses."""
    replay_buffer_size: Count = 100_000
    """Transitions that are kept."""
    reward_scale: Positive = 0.1
    """Rewards are multiplied by it for learning, so that values are of the order of 1."""
    explore_noise_scale: NotNegative = 0.1
    """Standard deviation of the noise of exploration, as a part of the largest action."""
    eval_noise_scale: NotNegative = 0.2
    """sigma of Eq. (6.16), as a part of the largest action; c is twice that."""
    policy_target_update_interval: Count = 2
    """d of Algorithm 6.27: critic steps for each step of the policy and the targets; 1 switches the delay off."""
    single_q: bool = False
    """One critic instead of the twins of Eq. (6.14)."""
    no_smoothing: bool = False
    """No smoothing of the target policy, Eq. (6.16)."""
    hidden_dim: Count = 64
    """Units of each hidden layer of all networks."""
    uniform_weights: bool = False
    """First weights and biases uniform up to 1/sqrt(inputs), as in PyTorch, instead of orthogonal and 0."""


BOX2D = dict(episodes=None, start_steps=10_000, gamma=0.99, batch_size=128, hidden_dim=128, replay_buffer_size=300_000)
RUNNER = BOX2D | dict(
    steps=1_000_000,
    soft_tau=0.005,
    batch_size=256,
    hidden_dim=256,
    replay_buffer_size=1_000_000,
    reward_scale=1.0,
)
ANT = RUNNER | dict(steps=800_000, start_steps=25_000, policy_lr=3e-4, q_lr=3e-4, uniform_weights=True)
BULLET = RUNNER | dict(gamma=0.98, replay_buffer_size=300_000)
WALKER = RUNNER | dict(gamma=0.98, end_lr=0.0, reward_scale=0.1, explore_noise_scale=0.2, hidden_dim=128)
PRESETS = {
    "LunarLanderContinuous-v2": dict(steps=300_000, end_lr=0.0, **BOX2D),
    "BipedalWalker-v3": WALKER,
    **dict.fromkeys(environments.MUJOCO, RUNNER),
    **dict.fromkeys(environments.ANTS, ANT),
    **dict.fromkeys(environments.BULLET, BULLET),
    "AntBulletEnv-v0": BULLET | dict(soft_tau=0.01, batch_size=128, hidden_dim=128),
}


def train(config, agent, env):
    """Act with noise, remember every step, learn from random memories."""
    from common.progress import Training

    replay_buffer = agent.replay_buffer
    with Training(config, agent, env) as run:
        while run.goes_on():
            state, _ = env.reset()
            episode_reward, length, done = 0.0, 0, False
            while not done:
                if replay_buffer.position < config.start_steps:
                    action = agent.policy_net.sample_action()
                else:
                    action = agent.policy_net.get_action(state, config.explore_noise_scale)
                next_state, reward, terminated, truncated, _ = env.step(action)
                replay_buffer.push(state, action, reward, next_state, terminated)
                state = next_state
                episode_reward += reward
                length += 1
                done = terminated or truncated
                if replay_buffer.position >= config.start_steps and replay_buffer.position % config.update_every == 0:
                    report = agent.update(
                        config.batch_size,
                        config.eval_noise_scale,
                        config.reward_scale,
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
    return play(config, lambda state: agent.policy_net.get_action(state, 0.0, greedy=True))


def main():
    config = command.parse(Config, PRESETS)
    env = environments.make(config.env, config.seed, "human" if config.render else None)
    environments.require_actions(env, "continuous")
    with loading(config):  # only now: --help and a wrong flag are answered at once
        from td3.agent import TD3, ReplayBuffer
    state_dim, action_dim, action_range = environments.dimensions(env)
    replay_buffer = ReplayBuffer(config.replay_buffer_size)
    settings = command.keywords(config, TD3) | dict(total_steps=config.steps)
    agent = TD3(state_dim, action_dim, replay_buffer, action_range=action_range, **settings)
    if config.train:
        train(config, agent, env)
    if config.test:
        test(config, agent)


if __name__ == "__main__":
    command.run(main)
