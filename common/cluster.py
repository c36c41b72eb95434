"""Workers in processes of their own, on one machine or many, by Ray, an optional requirement."""

import contextlib
import itertools
import os
import socket
from pathlib import Path

import numpy as np

from common import checkpoint, environments
from common.command import UserError
from common.quiet import quiet

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise UserError("--ray needs Ray: pip install -r requirements/ray.txt") from None

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def connect(address: str, algorithm: str):
    """Ray, on a cluster started here ('local') or joined at `address` ('host:port') as long as the block lasts.

    algorithm: the folder that the cluster's processes import; they get it, and `common`, from here.
    Raises UserError if nobody answers at the address or the cluster is lost, and what an actor has raised.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its core writes about workers that end
    try:
        if address != "local":  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        with quiet():  # "Set ray log level from ..."
            ray.init(
                address,
                runtime_env={"py_modules": [str(ROOT / "common"), str(ROOT / algorithm)]},
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--ray: can't join a cluster at '{address}' ({str(error).splitlines()[0]})") from None
    try:
        yield
    except RayError as error:
        cause = error
        while isinstance(cause, RayTaskError):  # more than one, where an actor has asked another
            cause = cause.cause
        if isinstance(cause, RayError):
            raise UserError(f"--ray: {str(cause).splitlines()[0]}") from None
        raise cause from None
    finally:
        ray.shutdown()


def cores() -> list[str]:
    """The id of a node for every core of the cluster, the nodes taking turns."""
    nodes = [(node["NodeID"], int(node["Resources"].get("CPU", 0))) for node in ray.nodes() if node["Alive"]]
    return [node for _, node in sorted((core, node) for node, count in nodes for core in range(count))]


def actors(cls, arguments: list[dict]) -> list:
    """A Ray actor `cls(**each)` for each dict of arguments, each on the next core.

    One that dies is begun anew, on another node if its own is gone, and so is the call that it was working on.
    """
    # num_cpus: with 0 Ray ignores the strategy, with more than a little some could wait for ever
    for_ever = ray.remote(num_cpus=0.001, max_restarts=-1, max_task_retries=-1)(cls)
    strategies = (NodeAffinitySchedulingStrategy(node, soft=True) for node in itertools.cycle(cores()))
    return [for_ever.options(scheduling_strategy=next(strategies)).remote(**each) for each in arguments]


class RemoteWorker:
    """Stands for a `Worker` whose environments are in processes of their own; all of them act, then all wait.

    worker_class, agent_class, settings: `worker_class(envs)` collects, and `agent_class(..., **settings)` acts for it.
    seeds: of each environment.
    """

    def __init__(self, worker_class, agent_class, settings: dict, env_id: str, seeds: list[int]):
        shares = [share.tolist() for share in np.array_split(seeds, min(len(seeds), len(cores())))]
        parts = dict(worker_class=worker_class, agent_class=agent_class, env_id=env_id)
        self.nodes = actors(Node, [parts | dict(settings=settings | dict(seed=s[0]), seeds=s) for s in shares])

    def collect(self, agent, n_steps: int) -> tuple:
        """`Worker.collect` with the agent's weights, of all environments."""
        agent_weights = ray.put(agent.get_weights())
        parts = ray.get([node.collect.remote(agent_weights, n_steps) for node in self.nodes])
        *batch, episodes = zip(*parts, strict=True)
        return *(np.concatenate(arrays, axis=1) for arrays in batch), [*itertools.chain(*episodes)]


class Node:
    """Some of the environments in a process of their own, with a copy of the agent that acts there."""

    def __init__(self, worker_class, agent_class, settings, env_id, seeds):
        envs = [environments.make(env_id, seed) for seed in seeds]
        self.agent, self.worker = agent_class(*environments.dimensions(envs[0]), **settings), worker_class(envs)

    def collect(self, agent_weights, n_steps):
        self.agent.set_weights(*agent_weights)
        return self.worker.collect(self.agent, n_steps)


class Master:
    """A global network in a process of its own, and workers in others that give it their gradients.

    agent: what it begins as.  settings: those that `agent` was made with.
    worker_class, arguments: for each dict of arguments a worker, whose `work(globalAC, coord, report)` never ends.
    """

    def __init__(self, agent, settings: dict, worker_class, arguments: list[dict]):
        class Net(type(agent)):
            def get_state(self):
                return checkpoint.collect(agent=self)

            def set_state(self, state):
                checkpoint.restore(state, "the global network", agent=self)

        self.net, self.episodes = ray.remote(num_cpus=0)(Net).remote(**settings), Queue()
        ray.get(self.net.set_state.remote(checkpoint.collect(agent=agent)))
        workers = actors(worker_class, arguments)
        self.work = [each.work.remote(RemoteNet(self.net), Endless(), self.episodes.put) for each in workers]

    def follow(self, agent) -> list[tuple]:
        """Bring the agent to the network's state, optimisers included; returns what workers reported at episodes' ends.

        Waits a second for them, and raises what a worker has raised.
        """
        ended, _ = ray.wait(self.work, timeout=1)
        ray.get(ended)  # a worker ends only by raising
        checkpoint.restore(ray.get(self.net.get_state.remote()), "the global network", agent=agent)
        return self.episodes.take()


class RemoteNet:
    """Stands for the global network where a worker is; one call an update, as its answer brings the new weights."""

    def __init__(self, actor):
        self.actor = actor
        self.weights = actor.get_weights.options(num_returns=3).remote()

    def __reduce__(self):
        return RemoteNet, (self.actor,)  # a worker that is begun anew asks anew

    def apply_gradients(self, *arguments) -> None:
        """Send gradients; `get_weights` waits for the answer."""
        self.weights = self.actor.apply_gradients.options(num_returns=3).remote(*arguments)

    def get_weights(self) -> list:
        """psi, theta and statistics: in parts, because Ray is twice as fast with less than 100 KB."""
        return ray.get(self.weights)


class Queue:
    """What workers anywhere `put` in, and the process that trains takes out.

    Nobody waits for a `put`; the queue of `ray.util` keeps a worker for the time of a dozen steps.
    """

    def __init__(self):
        self.items = ray.remote(num_cpus=0)(Items).remote()

    def put(self, *item) -> None:
        """Add a tuple."""
        self.items.put.remote(item)

    def take(self) -> list[tuple]:
        """All that is there."""
        return ray.get(self.items.take.remote())


class Items:
    """The process behind a `Queue`."""

    def __init__(self):
        self.items = []

    def put(self, item):
        self.items.append(item)

    def take(self):
        items, self.items = self.items, []
        return items


class Endless:
    """A coordinator for workers that do not stop by themselves."""

    def should_stop(self) -> bool:
        return False
