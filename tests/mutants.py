"""Mutants: the code broken in one place at a time, to see whether its tests notice.

python tests/mutants.py               all of them (`make mutants`)
python tests/mutants.py ppo common    those of these folders

A mutant is what it breaks, a piece of text that stands once in its file, the text in its place, and the tests that must
fail then: those that the book's maps name for this line, where they do. A test without a file is of the folder's own
one, and `ch6::test_x` is of tests/test_equations_ch6.py.

Mutants are put into a copy of the project and run one by one. One that no test notices survives: what it breaks is not
tested, and a test that proves it by its values belongs in the folder's file. A change that changes no result belongs
nowhere. The exit status is 1 if a mutant survives, and 2 if the tests could not be run.
"""

import contextlib
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300  # seconds that a mutant may take
FILES = {"ch5": "equations_ch5", "ch6": "equations_ch6", "off": "off_policy"}

MUTANTS = {
    "ppo/agent.py": [
        (
            "lambda's rule takes KL(new || old)",
            "self.distribution(old_output, old_log_std).kl_divergence(self.pi(states))",
            "self.pi(states).kl_divergence(self.distribution(old_output, old_log_std))",
            "test_lambda_adapts_to_the_divergence_of_new_from_old",
        ),
        (
            "lambda falls where it should rise",
            "if kl < self.kl_target / 1.5:",
            "if kl > self.kl_target / 1.5:",
            "test_lambda_adapts_as_in_algorithm_5_23",
        ),
        (
            "lambda rises without the tolerance a",
            "elif kl > self.kl_target * 1.5:",
            "elif kl > self.kl_target:",
            "test_lambda_adapts_as_in_algorithm_5_23",
        ),
        (
            "advantages are not normalised",
            "        adv = (adv - adv.mean()) / (adv.std() + 1e-8)\n",
            "",
            "test_the_compiled_update_is_the_steps_that_the_methods_take",
        ),
        (
            "pi_old is computed anew in each minibatch",
            "old_pi = self.distribution(tf.gather(old_output, k), old_log_std)",
            "old_pi = self.pi(tf.gather(states, k))",
            "test_the_compiled_update_is_the_steps_that_the_methods_take",
        ),
        (
            "the critic takes M steps",
            "self._minibatches(self.c_update_epochs)",
            "self._minibatches(self.a_update_epochs)",
            "test_the_compiled_update_is_the_steps_that_the_methods_take",
        ),
        (
            "the ratio upside down",
            "pi.log_prob(action) - old_pi.log_prob(action)",
            "old_pi.log_prob(action) - pi.log_prob(action)",
            "test_clip_loss_is_equation_5_38",
        ),
        (
            "the larger of the two terms",
            "tf.minimum(ratio * adv, clipped * adv)",
            "tf.maximum(ratio * adv, clipped * adv)",
            "test_clip_loss_is_equation_5_38",
        ),
        (
            "clipped from above only",
            "tf.clip_by_value(ratio, 1 - self.epsilon, 1 + self.epsilon)",
            "tf.minimum(ratio, 1 + self.epsilon)",
            "test_clip_loss_is_equation_5_38",
        ),
        (
            "the penalty is KL(new || old)",
            "self.lam * old_pi.kl_divergence(pi)",
            "self.lam * pi.kl_divergence(old_pi)",
            "test_penalty_loss_is_equation_5_37",
        ),
        (
            "the penalty is a reward",
            "ratio * adv - self.lam *",
            "ratio * adv + self.lam *",
            "test_penalty_loss_is_equation_5_37",
        ),
        (
            "an end bootstraps and a time limit does not",
            "last_value = 0.0 if done else",
            "last_value = 0.0 if not done else",
            "test_lambda_1_gives_the_books_discounted_sum",
        ),
        (
            "the critic's returns do not bootstrap",
            "        returns[n] = last_value\n",
            "",
            "test_lambda_1_gives_the_books_discounted_sum",
        ),
        (
            "advantages without lambda",
            "adv[t] = delta + self.gamma * self.gae_lambda * adv[t + 1]",
            "adv[t] = delta + self.gamma * adv[t + 1]",
            "test_advantage_by_hand",
        ),
        (
            "the next value is not discounted",
            "delta = reward + self.gamma * value[t + 1] - value[t]",
            "delta = reward + value[t + 1] - value[t]",
            "test_advantage_by_hand",
        ),
        (
            "rewards are not scaled",
            "reward = self.reward_scale * self.reward_buffer[t]",
            "reward = self.reward_buffer[t]",
            "test_advantage_by_hand",
        ),
        (
            "the clipped action is stored",
            "        return output + self.std * self.rng.standard_normal(output.shape, np.float32)\n",
            "        action = output + self.std * self.rng.standard_normal(output.shape, np.float32)\n"
            "        return np.clip(action, -self.action_bound, self.action_bound)\n",
            "test_stored_action_is_the_sampled_one",
        ),
        (
            "the critic's learning rate does not fall",
            "for optimizer, lr in (self.actor_opt, self.lr_a), (self.critic_opt, self.lr_c):",
            "for optimizer, lr in [(self.actor_opt, self.lr_a)]:",
            "test_learning_rates_fall_linearly",
        ),
    ],
    "ppo/main.py": [
        (
            "a full batch at a time limit takes it for an end",
            "agent.finish_path(state, terminated)\n                    agent.update()",
            "agent.finish_path(state, done)\n                    agent.update()",
            "test_the_loop_closes_a_path_at_ends_limits_and_full_batches",
        ),
        (
            "a full batch is an end",
            "agent.finish_path(state, terminated)\n                    agent.update()",
            "agent.finish_path(state, True)\n                    agent.update()",
            "test_the_loop_closes_a_path_at_ends_limits_and_full_batches",
        ),
        (
            "a time limit is an end",
            "agent.finish_path(state, terminated)\n            run.log",
            "agent.finish_path(state, done)\n            run.log",
            "test_the_loop_closes_a_path_at_ends_limits_and_full_batches",
        ),
    ],
    "td3/agent.py": [
        (
            "the exploration's noise is 0",
            "action = action + explore_noise_scale * self.rng",
            "action = action + 0 * self.rng",
            "test_exploration_adds_noise_in_parts_of_the_range",
        ),
        (
            "the reward's scale is ignored",
            "self.target_q(reward_scale * reward,",
            "self.target_q(reward,",
            "test_update_is_algorithm_6_27_round_by_round",
        ),
        (
            "the same noise at every step",
            "gamma, noise[i])",
            "gamma, noise[0])",
            "test_update_is_algorithm_6_27_round_by_round",
        ),
        (
            "the same minibatch at every step",
            "tf.split(batches[i],",
            "tf.split(batches[0],",
            "test_update_is_algorithm_6_27_round_by_round",
        ),
        (
            "the delay is off by one",
            "(count + i + 1) %",
            "(count + i) %",
            "test_delays_policy_and_targets",
        ),
        (
            "the count of rounds begins anew in each call",
            "self.update_cnt += steps",
            "self.update_cnt = 0",
            "test_delays_policy_and_targets",
        ),
        (
            "the targets move at every step",
            "                for net, target_net in self.pairs:\n"
            "                    self.target_soft_update(net, target_net, soft_tau)\n",
            "            for net, target_net in self.pairs:\n"
            "                self.target_soft_update(net, target_net, soft_tau)\n",
            "test_update_is_algorithm_6_27_round_by_round",
        ),
        (
            "the larger of the twins",
            "q = tf.minimum(q, self.target_q_net2(next_input))",
            "q = tf.maximum(q, self.target_q_net2(next_input))",
            "ch6::test_td3_target_6_14_6_16",
        ),
        (
            "the target from the second critic alone",
            "q = tf.minimum(q, self.target_q_net2(next_input))",
            "q = self.target_q_net2(next_input)",
            "ch6::test_td3_target_6_14_6_16",
        ),
        (
            "the target from the critics themselves",
            "q = self.target_q_net1(next_input)",
            "q = self.q_net1(next_input)",
            "ch6::test_td3_target_6_14_6_16",
        ),
        (
            "the target's action from the policy itself",
            "next_action = self.target_policy_net.evaluate(",
            "next_action = self.policy_net.evaluate(",
            "ch6::test_td3_target_6_14_6_16",
        ),
        (
            "an end bootstraps",
            "reward + gamma * (1 - done) * q",
            "reward + gamma * q",
            "ch6::test_td3_target_6_14_6_16",
        ),
        (
            "the smoothing's noise is not clipped",
            "tf.clip_by_value(noise * eval_noise_scale, -2 * eval_noise_scale, 2 * eval_noise_scale)",
            "noise * eval_noise_scale",
            "ch6::test_td3_target_6_14_6_16",
        ),
        (
            "target actions leave the bounds",
            "tf.clip_by_value(self.forward(state) + epsilon, -1.0, 1.0)",
            "(self.forward(state) + epsilon)",
            "ch6::test_td3_target_6_14_6_16",
        ),
        (
            "the policy climbs the second critic",
            "loss = -tf.reduce_mean(self.q_net1(",
            "loss = -tf.reduce_mean(self.q_net2(",
            "ch6::test_td3_critic_and_policy_losses",
        ),
        (
            "the second critic learns nothing",
            "self.train_q(self.q_net2, self.q_optimizer2,",
            "self.train_q(self.q_net1, self.q_optimizer1,",
            "test_update_is_algorithm_6_27_round_by_round",
        ),
        (
            "the moving average reversed",
            "soft_tau * param + (1 - soft_tau) * target_param",
            "(1 - soft_tau) * param + soft_tau * target_param",
            "ch6::test_td3_soft_update",
        ),
        (
            "targets begin with weights of their own",
            "return self.target_soft_update(net, target_net, 1.0)",
            "return self.target_soft_update(net, target_net, 0.0)",
            "test_delays_policy_and_targets",
        ),
        (
            "the target policy acts with old weights",
            "        self.target_policy_net.policy.refresh()\n",
            "",
            "test_both_policies_act_as_their_networks_do",
        ),
    ],
    "td3/main.py": [
        (
            "a time limit is an end",
            "next_state, terminated)",
            "next_state, terminated or truncated)",
            "off::test_end_and_time_limit_are_told_apart_in_the_memory[td3]",
        ),
        (
            "the state before the step for the one after it",
            "replay_buffer.push(state, action, reward, next_state,",
            "replay_buffer.push(state, action, reward, state,",
            "off::test_end_and_time_limit_are_told_apart_in_the_memory[td3]",
        ),
        (
            "random actions until the buffer is that long",
            "if replay_buffer.position < config.start_steps:",
            "if len(replay_buffer) < config.start_steps:",
            "off::test_a_buffer_smaller_than_the_random_steps_does_not_hold_learning_up[td3]",
        ),
        (
            "one gradient step for update_every steps",
            "                        config.soft_tau,\n                        config.update_every,\n",
            "                        config.soft_tau,\n",
            "off::test_main_hands_its_settings_over[td3]",
        ),
    ],
    "sac/agent.py": [
        (
            "the target from the first critic alone",
            "q = tf.minimum(self.target_soft_q_net1(next_input), self.target_soft_q_net2(next_input))",
            "q = self.target_soft_q_net1(next_input)",
            "ch6::test_soft_target_6_19_6_20",
        ),
        (
            "the target from the critics themselves",
            "q = tf.minimum(self.target_soft_q_net1(next_input), self.target_soft_q_net2(next_input))",
            "q = tf.minimum(self.soft_q_net1(next_input), self.soft_q_net2(next_input))",
            "ch6::test_soft_target_6_19_6_20",
        ),
        (
            "the target without the entropy",
            "(q - self.alpha * next_log_prob)",
            "q",
            "ch6::test_soft_target_6_19_6_20",
        ),
        (
            "the target's entropy with the other sign",
            "(q - self.alpha * next_log_prob)",
            "(q + self.alpha * next_log_prob)",
            "ch6::test_soft_target_6_19_6_20",
        ),
        (
            "an end bootstraps",
            "gamma * (1 - done) * (q",
            "gamma * (q",
            "ch6::test_soft_target_6_19_6_20",
        ),
        (
            "the policy climbs the first critic alone",
            "q = tf.minimum(self.soft_q_net1(q_input), self.soft_q_net2(q_input))",
            "q = self.soft_q_net1(q_input)",
            "ch6::test_policy_loss_6_28_falls_and_returns_the_log_prob",
        ),
        (
            "the policy climbs the larger of the twins",
            "q = tf.minimum(self.soft_q_net1(q_input), self.soft_q_net2(q_input))",
            "q = tf.maximum(self.soft_q_net1(q_input), self.soft_q_net2(q_input))",
            "ch6::test_policy_loss_6_28_falls_and_returns_the_log_prob",
        ),
        (
            "the policy climbs the target critics",
            "q = tf.minimum(self.soft_q_net1(q_input), self.soft_q_net2(q_input))",
            "q = tf.minimum(self.target_soft_q_net1(q_input), self.target_soft_q_net2(q_input))",
            "ch6::test_policy_loss_6_28_falls_and_returns_the_log_prob",
        ),
        (
            "the policy's loss without alpha log pi",
            "tf.reduce_mean(self.alpha * log_prob - q)",
            "tf.reduce_mean(-q)",
            "ch6::test_policy_loss_6_28_falls_and_returns_the_log_prob",
        ),
        (
            "no gradient through the action",
            "action = self.action_range * tf.tanh(u)",
            "action = tf.stop_gradient(self.action_range * tf.tanh(u))",
            "ch6::test_policy_loss_6_28_falls_and_returns_the_log_prob",
        ),
        (
            "the moving average reversed",
            "soft_tau * param + (1 - soft_tau) * target_param",
            "(1 - soft_tau) * param + soft_tau * target_param",
            "ch6::test_sac_soft_update",
        ),
        (
            "targets do not lag",
            "self.target_soft_update(net, target_net, soft_tau)",
            "self.target_soft_update(net, target_net, 1.0)",
            "test_update_is_algorithm_6_28_step_by_step",
        ),
        (
            "targets begin with weights of their own",
            "return self.target_soft_update(net, target_net, 1.0)",
            "return self.target_soft_update(net, target_net, 0.0)",
            "test_update_is_algorithm_6_28_step_by_step",
        ),
        (
            "kappa with the other sign in the loss of alpha",
            "(log_prob + target_entropy)",
            "(log_prob - target_entropy)",
            "ch6::test_alpha_6_29_loss_and_slope",
        ),
        (
            "kappa is by default the number of dimensions and not minus it",
            "kappa = -self.policy_net.num_actions if",
            "kappa = self.policy_net.num_actions if",
            "test_update_is_algorithm_6_28_step_by_step",
        ),
        (
            "alpha learns where it should stay",
            "            if auto_entropy:\n                self.train_alpha",
            "            if True:\n                self.train_alpha",
            "test_fixed_alpha_stays_and_automatic_alpha_moves",
        ),
        (
            "the log-std is not clipped for learning",
            "return mean, tf.clip_by_value(log_std, self.log_std_min, self.log_std_max)",
            "return mean, log_std",
            "test_log_std_is_clipped_for_acting_and_for_learning",
        ),
        (
            "the log-std is not clipped for acting",
            "np.exp(np.minimum(np.maximum(log_std, self.log_std_min), self.log_std_max))",
            "np.exp(log_std)",
            "test_log_std_is_clipped_for_acting_and_for_learning",
        ),
        (
            "no change of variables for tanh",
            "gaussian - log_one_minus_tanh_squared(u) - np.log",
            "gaussian - np.log",
            "ch6::test_density_integrates_to_one",
        ),
        (
            "no change of variables for the range",
            "gaussian - log_one_minus_tanh_squared(u) - np.log(self.action_range)",
            "gaussian - log_one_minus_tanh_squared(u)",
            "ch6::test_density_integrates_to_one",
        ),
        (
            "the density without the deviation",
            "tf.square(noise) - log_std - 0.5",
            "tf.square(noise) - 0.5",
            "ch6::test_density_integrates_to_one",
        ),
        (
            "log(1 - tanh^2) as the listing has it",
            "return 2 * (np.log(2.0) - u - tf.nn.softplus(-2 * u))",
            "return tf.math.log(1 - tf.square(tf.tanh(u)) + 1e-6)",
            "ch6::test_log_prob_is_finite_and_exact_where_tanh_saturates",
        ),
        (
            "the reward's scale is ignored",
            "self.target_q(reward_scale * reward,",
            "self.target_q(reward,",
            "test_update_is_algorithm_6_28_step_by_step",
        ),
        (
            "the same noise for target and policy",
            "self.train_policy(state, noise[i, 1])",
            "self.train_policy(state, noise[i, 0])",
            "test_update_is_algorithm_6_28_step_by_step",
        ),
        (
            "the same noise at every step",
            "gamma, noise[i, 0])",
            "gamma, noise[0, 0])",
            "test_update_is_algorithm_6_28_step_by_step",
        ),
        (
            "acting without noise",
            "mean = mean + std * self.rng",
            "mean = mean + 0 * std * self.rng",
            "test_actions_are_samples_of_the_squashed_gaussian",
        ),
    ],
    "sac/main.py": [
        (
            "a time limit is an end",
            "next_state, terminated)",
            "next_state, terminated or truncated)",
            "off::test_end_and_time_limit_are_told_apart_in_the_memory[sac]",
        ),
        (
            "alpha learns if it is given",
            "                        config.alpha is None,\n",
            "                        config.alpha is not None,\n",
            "off::test_main_hands_its_settings_over[sac]",
        ),
        (
            "a resumed run keeps the alpha of its checkpoint",
            "            agent.alpha = config.alpha\n",
            "            pass\n",
            "test_a_resumed_run_takes_its_fixed_alpha_from_its_own_flags",
        ),
    ],
}


def in_full(path: str, names: str) -> list[str]:
    """What pytest takes for the tests of an entry: 'test_x' of "ppo/agent.py" -> 'tests/test_ppo.py::test_x'."""
    full = [name if "::" in name else f"{path.split('/')[0]}::{name}" for name in names.split()]
    return [f"tests/test_{FILES.get(file, file)}.py::{test}" for file, test in (name.split("::") for name in full)]


def broken(root: Path, path: str, old: str, new: str) -> str:
    """The file's text with `new` for `old`. Raises ValueError if `old` doesn't stand there exactly once."""
    text = (root / path).read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path} has this text {text.count(old)} times and not once: {old.strip()}")
    return text.replace(old, new)


def main(folders: list[str]) -> int:
    """Run the mutants of the folders, or all; returns the exit status."""
    if unknown := {*folders} - {path.split("/")[0] for path in MUTANTS}:
        print(f"there are no mutants of {', '.join(sorted(unknown))}")
        return 2
    os.environ.update(JIT_COMPILE="0", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")  # XLA compiles for longer
    if hasattr(os, "fork"):  # imported once: the processes inherit them. TensorLayer would start TensorFlow's threads
        import gym  # noqa: F401
        import scipy.stats  # noqa: F401
        import tensorflow_probability  # noqa: F401
    return hunt(ROOT, {path: each for path, each in MUTANTS.items() if not folders or path.split("/")[0] in folders})


def hunt(root: Path, mutants: dict[str, list[tuple[str, str, str, str]]]) -> int:
    """Run the mutants of the project at root and print how each fares; returns the exit status."""
    start, survivors = time.monotonic(), []
    try:
        entries = [
            (path, what, broken(root, path, *change), in_full(path, names))
            for path, each in mutants.items()
            for what, *change, names in each
        ]
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "copy"
            shutil.copytree(root, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "model", "image"))
            tests = sorted({test for *_, each in entries for test in each})
            if failed := run(tree, tests):
                raise RuntimeError(f"the code as it is fails {failed}")
            print(f"{len(tests)} tests pass on the code as it is ({time.monotonic() - start:.0f} s)", flush=True)
            for path, what, text, each in entries:
                began, original = time.monotonic(), (tree / path).read_text(encoding="utf-8")
                (tree / path).write_text(text, encoding="utf-8")
                failed = run(tree, each)
                (tree / path).write_text(original, encoding="utf-8")
                fate = f"dies ({failed})" if failed else "SURVIVES"
                print(f"{time.monotonic() - began:5.1f} s  {path}: {what}: {fate}", flush=True)
                survivors += [] if failed else [f"{path}: {what}"]
    except (ValueError, RuntimeError) as error:
        print(error)
        return 2
    print(
        f"{len(survivors)} of {len(entries)} mutants survive ({time.monotonic() - start:.0f} s)", *survivors, sep="\n"
    )
    return 1 if survivors else 0


def run(tree: Path, tests: list[str]) -> str:
    """The first of the tests that fails in the tree, in a process of its own; '' if none does.

    Raises RuntimeError with the end of what pytest says if they can't be run, or don't come to an end.
    """
    log = tree.parent / "log"
    process = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn").Process(
        target=_pytest, args=(tree, tests, log)
    )
    process.start()
    process.join(LIMIT + 10 * len(tests))
    if process.is_alive():
        process.kill()
        process.join()
        raise RuntimeError(f"no end in {LIMIT} s: {' '.join(tests)}")
    output = log.read_text(encoding="utf-8")
    if process.exitcode not in (0, 1):
        raise RuntimeError(f"{output[-3000:]}\npytest ended with status {process.exitcode}: {' '.join(tests)}")
    failed = re.findall(r"^(?:FAILED|ERROR) \S+?::(\S+)", output, re.M)
    return failed[0] if process.exitcode else ""


def _pytest(tree, tests, log):
    import pytest

    ours = {str(ROOT), str(ROOT / "tests")}
    sys.path[:] = [place for place in sys.path if place not in ours]  # the copy's modules, not those of the project
    sys.dont_write_bytecode = True  # a mutant of the same length in the same second would not be seen
    os.chdir(tree)
    with open(log, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        options = ["-o", "addopts=", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short", "-rfE"]
        status = pytest.main([*options, *tests])
    sys.exit(int(status))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
