"""The shipped weights and the checkpoints as the page to play with takes them. Needs NumPy and no TensorFlow."""

import base64
import json
from pathlib import Path

import numpy as np

# Which folders serve the two environments that the page knows.
ENVIRONMENTS = {
    "CartPole-v1": ("reinforce", "ac", "a2c", "a3c", "trpo", "ppo", "acktr"),
    "Pendulum-v1": ("a2c", "a3c", "trpo", "ppo", "acktr", "ddpg", "td3", "sac"),
}
# The files of pretrained/ that hold the policy and what judges it (of two critics the first).
FILES = {
    **{each: {"actor": "actor", "critic": "critic"} for each in ("ac", "a2c", "a3c", "trpo", "ppo", "acktr", "ddpg")},
    "reinforce": {"actor": "actor", "critic": None},
    "td3": {"actor": "policy_net", "critic": "q_net1"},
    "sac": {"actor": "policy_net", "critic": "soft_q_net1"},
}
# The activation of hidden layers. Outputs have none, but for the layers named here, which have tanh.
RELU = ("ddpg", "td3", "sac")
TANH_OUTPUTS = ("output_tanh", "action")  # a Gaussian's mean, and DDPG's action
BOUNDS = {"CartPole-v1": None, "Pendulum-v1": 2.0}


def export(root: Path, folder: str, env: str) -> str:
    """JavaScript that hands the page every point of a training run: play.weights({...}).

    The shipped weights are the last point, in float32; those before it are checkpoints, which were kept in float16.
    """
    pretrained, points = root / folder / "pretrained" / env, []
    checkpoints = root / "docs" / "site" / "checkpoints" / f"{folder}_{env}.npz"
    if checkpoints.exists():
        with np.load(checkpoints) as file:
            arrays = {name: file[name] for name in file.files}
        for steps in sorted({int(name.split("/")[0]) for name in arrays}):
            own = {name.split("/", 1)[1]: array for name, array in arrays.items() if name.startswith(f"{steps}/")}
            running = float(own.pop("running"))
            about = {"steps": steps, "running": None if np.isnan(running) else round(running, 1)}
            points.append({**about, **_point(folder, env, own)})
    scale = 0.1
    if pretrained.exists():
        scale = json.loads((pretrained / "config.json").read_text())["reward_scale"]
        arrays = {}
        for network, name in FILES[folder].items():
            if name:
                with np.load(pretrained / f"{name}.npz") as file:
                    arrays |= {f"{network}/{key}": file[key] for key in file.files}
        points.append({"steps": None, "running": None, **_point(folder, env, arrays)})
    about = {"folder": folder, "env": env, "bound": BOUNDS[env], "rewardScale": scale, "points": points}
    return f"play.weights({json.dumps(about)});\n"


def _point(folder, env, arrays):
    """One policy and its critic: the kind of policy, the layers' sizes, and all numbers of them in one string."""
    numbers = {name: array for name, array in arrays.items() if name.endswith(("/weights", "/biases"))}
    log_std, mean = arrays.get("actor/log_std"), arrays.get("actor/mean")
    if BOUNDS[env] is None:
        kind = "softmax"
    else:
        kind = {"sac": "squashed", "ddpg": "deterministic", "td3": "deterministic"}.get(folder, "gaussian")
    point = {"kind": kind, "data": _base64(numbers.values())}
    for network in ("actor", "critic"):
        names = [name for name in numbers if name.startswith(network) and name.endswith("/weights")]
        if names:
            last = names[-1].split("/")[-2]
            tanh = last in TANH_OUTPUTS or (folder, last) == ("td3", "policy_output")
            point[network] = {
                "sizes": [numbers[names[0]].shape[0], *(numbers[name].shape[1] for name in names)],
                "hidden": "relu" if folder in RELU else "tanh",
                "output": "tanh" if tanh else None,
            }
    if kind == "gaussian":
        point["std"] = np.exp(log_std.astype(np.float64)).tolist()
    if mean is not None:  # of the states: the network sees them normalised
        point["mean"], point["var"] = mean.tolist(), arrays["actor/var"].tolist()
    return point


def _base64(arrays):
    """Layer after layer, weights row by row and then biases, as little-endian float32."""
    flat = np.concatenate([np.ravel(array) for array in arrays]).astype("<f4")
    return base64.b64encode(flat.tobytes()).decode()
