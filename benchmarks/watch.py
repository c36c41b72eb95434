"""When a task is solved: greedy episodes between those of training, and their time taken out.

solve.py runs this file once a seed: `python benchmarks/watch.py LAUNCHED GOAL EVERY ppo --train --seed 0 ...`
is `python ppo/main.py --train --seed 0 ...`, watched until it has solved its task.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # instead of this folder, whose profile.py would pass for Python's own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

FIRST_SEED = 10_000  # of the ten starts, which are the same for all, at each evaluation
EPISODES = 10


class Watch:
    """Evaluates each time that training has passed another `every` steps, until the mean reward exceeds `goal`.

    evaluate: gives the mean reward of the policy as it is.
    launched: when the process was started, by `clock`.
    seconds: from there to the last step noted, without the evaluations.  reward: of the last evaluation.
    """

    def __init__(self, evaluate: Callable[[], float], goal: float, every: int, launched: float, clock=time.time):
        self.evaluate, self.goal, self.every, self.due = evaluate, goal, every, every
        self.launched, self.clock, self.spent = launched, clock, 0.0
        self.steps, self.seconds, self.reward, self.solved = 0, 0.0, None, False

    def __call__(self, steps: int) -> bool:
        """Note that training has come to `steps`; whether the task is solved."""
        if not self.solved:  # threads may go on a little
            self.steps, self.seconds = steps, self.clock() - self.launched - self.spent
            if steps >= self.due:
                self.due = (steps // self.every + 1) * self.every
                self._look()
        return self.solved

    def result(self) -> dict:
        """What came out; if training has ended unsolved, after a last look at where it ended."""
        if not self.solved:
            self._look()
        return {"solved": self.solved, "seconds": self.seconds, "steps": self.steps, "reward": self.reward}

    def _look(self):
        start = self.clock()
        self.reward = float(self.evaluate())
        self.spent += self.clock() - start
        self.solved = self.reward > self.goal


def mean_reward(envs: list, act: Callable) -> float:
    """The mean reward of one episode in each of the environments.

    act: gives an action for each of the states, a list as long as envs, those that have ended included.
    """
    states = [env.reset(seed=FIRST_SEED + i)[0] for i, env in enumerate(envs)]
    total, playing = 0.0, set(range(len(envs)))
    while playing:
        actions = act(states)
        for i in sorted(playing):
            states[i], reward, terminated, truncated, _ = envs[i].step(actions[i])
            total += float(reward)
            if terminated or truncated:
                playing.remove(i)
    return total / len(envs)


def greedy(algorithm: str, agent, state):
    """The action that the folder's --test takes in a state."""
    if algorithm == "td3":
        return agent.policy_net.get_action(state, 0.0, greedy=True)
    if algorithm == "sac":
        return agent.policy_net.get_action(state, greedy=True)
    return (agent.act if algorithm == "trpo" else agent.get_action)(state, greedy=True)


def watched(algorithm: str, goal: float, every: int, launched: float) -> dict:
    """Run the folder's command with the flags of sys.argv until its task is solved; returns `Watch.result`."""
    main = importlib.import_module(f"{algorithm}.main")
    train, results = main.train, []

    def train_watched(config, agent, *others):
        from common import environments, progress  # only now: TensorFlow is loaded, and as the command loads it

        envs, log = [], progress.Training.log

        def evaluate():
            envs.extend(environments.make(config.env, 0) for _ in range(EPISODES - len(envs)))
            return mean_reward(envs, lambda states: [greedy(algorithm, agent, state) for state in states])

        def log_watched(run, episode_reward, length):
            log(run, episode_reward, length)
            if watch(run.steps):
                run.interrupted = True

        watch = Watch(evaluate, goal, every, launched)
        progress.Training.log = log_watched
        try:
            train(config, agent, *others)
        except KeyboardInterrupt:  # this is how an interrupted training ends
            if not watch.solved:
                raise
        finally:
            progress.Training.log = log
        results.append(watch.result())

    main.train = train_watched
    try:
        main.main()
    finally:
        main.train = train
    return results[0]


if __name__ == "__main__":
    launched, goal, every, algorithm, *flags = sys.argv[1:]
    sys.argv = [f"{algorithm}/main.py", *flags]
    print(json.dumps(watched(algorithm, float(goal), int(every), float(launched))))
