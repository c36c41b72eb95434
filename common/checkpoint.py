"""The whole state of a training run on disk, so that --resume goes on as if it had never stopped.

State is what training changes. A number that a constructor was given is none: a resumed run takes it from its flags.
"""

import inspect
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common.acting import MLP
from common.command import UserError
from common.compiling import Settings
from common.environments import Replayable
from common.files import replacing
from common.vectors import Part

OURS = {"common", *(path.parent.name for path in Path(__file__).resolve().parents[1].glob("*/agent.py"))}
NUMBERS = (np.ndarray, np.generic, int, float)


def save(path: Path, **objects) -> None:
    """Write all that the objects hold: weights, optimisers, buffers, numbers, random generators."""
    with replacing(path) as temporary:
        np.savez(temporary, **_arrays(objects))  # as they are: a copy of a replay memory would double it


def load(path: Path, **objects) -> dict[str, np.ndarray]:
    """Bring objects to the state that `save` wrote; returns all that the file holds, by name.

    Raises UserError if the file is missing, damaged or of objects of other sizes.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise UserError(f"there is no training run to resume: {path} does not exist") from None
    except PermissionError as error:
        raise UserError(f"can't read {path} ({error.strerror})") from None
    except MemoryError:
        raise
    except Exception as error:
        raise UserError(f"{path} is damaged ({error})") from None
    restore(arrays, path, **objects)
    return arrays


def collect(**objects) -> dict[str, np.ndarray]:
    """All that the objects hold, as arrays by name that stay as they are when the objects change."""
    return {name: array.copy() for name, array in _arrays(objects).items()}


def restore(arrays: dict[str, np.ndarray], origin: str | Path, **objects) -> None:
    """Bring objects to the state that `collect` gave. Raises UserError, naming the origin, if it does not fit."""
    for check_only in (True, False):  # nothing is changed before all of it is known to fit
        for name, value in objects.items():
            _restore(name, value, arrays, origin, check_only)


def _arrays(objects: dict) -> dict[str, np.ndarray]:
    arrays = {}
    for name, value in objects.items():
        _collect(name, value, arrays)
    return arrays


def _variables(value) -> list | None:
    if isinstance(value, tl.models.Model):
        return [weight for weight in value.all_weights if not isinstance(weight, Part)]
    if isinstance(value, keras.optimizers.Optimizer):
        return [variable for variable in value.variables if variable is not value.learning_rate]
    if isinstance(value, Part):  # of a vector, which is saved
        return []
    return [value] if isinstance(value, tf.Variable) else None


def _is_ours(value) -> bool:
    return any(each.__module__.split(".")[0] in OURS for each in type(value).__mro__)  # a reader's subclass, too


def _members(value) -> dict:
    """What may be state in an object of this project; NumPy copies follow from the models, settings from the flags."""
    if isinstance(value, list):
        return {str(i): each for i, each in enumerate(value) if _is_ours(each)}
    if not _is_ours(value) or isinstance(value, (MLP, Settings)):
        return {}
    arguments = inspect.signature(type(value)).parameters
    return {name: each for name, each in vars(value).items() if name not in arguments or not isinstance(each, NUMBERS)}


def _collect(name: str, value, arrays: dict) -> None:
    if (variables := _variables(value)) is not None:
        arrays.update({f"{name}/{i}": np.asarray(variable) for i, variable in enumerate(variables)})
    elif isinstance(value, np.random.Generator):
        arrays[name] = np.array(json.dumps(value.bit_generator.state))
    elif isinstance(value, Replayable):
        arrays[f"{name}/origin"], arrays[f"{name}/actions"] = (
            np.array(json.dumps(value.origin)),
            np.array(value.actions),
        )
    elif isinstance(value, NUMBERS):
        arrays[name] = np.asarray(value)
    elif isinstance(value, list) and all(isinstance(each, NUMBERS) for each in value):
        arrays[name] = np.array(value)
    else:
        for key, member in _members(value).items():
            _collect(f"{name}/{key}", member, arrays)


def _restore(name: str, value, arrays: dict, origin: str | Path, check_only: bool, owner=None) -> None:
    def saved(key: str, shape=None) -> np.ndarray:
        if key not in arrays or (shape is not None and arrays[key].shape != tuple(shape)):
            raise UserError(f"{origin} is of a run with other settings: {key} differs")
        return arrays[key]

    if (variables := _variables(value)) is not None:
        for i, variable in enumerate(variables):
            array = saved(f"{name}/{i}", variable.shape)
            if not check_only:
                variable.assign(array)
        for member in getattr(value, "__dict__", {}).values():
            if isinstance(member, MLP):  # a model that keeps its own NumPy copy
                member.refresh()
    elif isinstance(value, np.random.Generator):
        state = json.loads(str(saved(name)))
        if not check_only:
            value.bit_generator.state = state
    elif isinstance(value, Replayable):
        origin_state, actions = json.loads(str(saved(f"{name}/origin"))), saved(f"{name}/actions")
        if not check_only:
            value.replay(origin_state, actions)
    elif isinstance(value, np.ndarray):
        array = saved(name, value.shape)
        if not check_only:
            value[...] = array
    elif isinstance(value, MLP):
        if not check_only:
            value.refresh()
    elif owner is not None and isinstance(value, (np.generic, int, float, list)) and name in arrays:
        if not check_only:
            attribute = name.rsplit("/", 1)[-1]
            setattr(owner, attribute, list(arrays[name]) if isinstance(value, list) else type(value)(arrays[name]))
    else:
        for key, member in _members(value).items():
            _restore(f"{name}/{key}", member, arrays, origin, check_only, owner=value)
