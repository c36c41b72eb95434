"""Weights on disk: npz with named arrays, or hdf5 in TensorLayer's layout. One file a network.

`tl.files.save_npz` and `load_hdf5_to_weights_in_order`, which the book calls, no longer work with
today's NumPy and h5py, and neither checks what it reads.
"""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import h5py
import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common.command import UserError
from common.files import replacing

# What reading a damaged file raises, or another program's: there a single array is no context manager (TypeError, in
# Python 3.10 AttributeError), and bytes have no dtype.
DAMAGE = (OSError, EOFError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, BadZipFile, zlib.error)


def save(folder: str | Path, hdf5: bool = False, **networks: list) -> None:
    """Write each network to folder/<its keyword>.npz, or .hdf5 for `tl.files.load_hdf5_to_weights`.

    networks: for each file the TensorLayer models, further tf.Variables (a log-std) and dicts of NumPy arrays
    (statistics) that go into it.
    A file is complete or not there: it is written under another name first. The same network in the
    other format is removed, so that there is one truth. Raises FloatingPointError, before anything is written, if a
    weight is not a finite number, and OSError if the folder can't be written.
    """
    for name, parts in networks.items():
        if odd := [key for key, array in _arrays(parts).items() if not np.isfinite(array).all()]:
            raise FloatingPointError(f"the weights {odd[0]} of {name} are no longer finite numbers")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, parts in networks.items():
        path, other = (folder / f"{name}{suffix}" for suffix in ((".hdf5", ".npz") if hdf5 else (".npz", ".hdf5")))
        with replacing(path) as temporary:
            if hdf5:
                _write_hdf5(temporary, parts)
            else:
                np.savez(temporary, **_arrays(parts))
        other.unlink(missing_ok=True)


def load(folder: str | Path, **networks: list) -> None:
    """Read what `save` wrote, npz or hdf5, into the same networks.

    Raises UserError, before any weight has changed, if a file is missing, damaged, or of another
    network.
    """
    assignments = []
    for name, parts in networks.items():
        path = _existing(Path(folder), name)
        arrays = _read_hdf5(path) if path.suffix == ".hdf5" else _read_npz(path)
        variables = _named(parts)
        if arrays.keys() != variables.keys():
            odd = ", ".join(sorted(arrays.keys() ^ variables.keys()))
            raise UserError(f"{path} holds another network: its weights differ in {odd}")
        for key, variable in variables.items():
            if arrays[key].shape != tuple(variable.shape):
                sizes = f"{key} is {list(arrays[key].shape)} there and {list(variable.shape)} here"
                raise UserError(f"{path} holds a network of another size: {sizes}")
            assignments.append((variable, arrays[key]))
    for variable, array in assignments:
        if isinstance(variable, np.ndarray):
            variable[...] = array
        else:
            variable.assign(array)


def exist(folder: Path) -> bool:
    """Whether the folder holds any weights; what --resume needs is none."""
    return any({*folder.glob("[!.]*.npz"), *folder.glob("[!.]*.hdf5")} - {folder / "resume.npz"})


def _named(parts: list) -> dict[str, tf.Variable | np.ndarray]:
    """Every weight of the models, variables and dicts in `parts` under its name, such as 'hidden_1/weights'."""
    named = {}
    for part in parts:
        if isinstance(part, dict):
            named.update(part)
        else:
            variables = part.all_weights if isinstance(part, tl.models.Model) else [part]
            named.update({variable.name.split(":")[0]: variable for variable in variables})
    return named


def _arrays(parts: list) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in _named(parts).items()}


def _existing(folder: Path, name: str) -> Path:
    for suffix in (".npz", ".hdf5"):
        if (path := folder / (name + suffix)).exists():
            return path
    raise UserError(f"there are no weights {folder / name}.npz or .hdf5: train first")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: _finite(file[key]) for key in file.files}
    except DAMAGE as error:
        raise UserError(f"{path} is damaged or no npz file of weights ({error})") from None


def _write_hdf5(path: Path, parts: list) -> None:
    for model in (part for part in parts if isinstance(part, tl.models.Model)):
        tl.files.save_weights_to_hdf5(str(path), model)
    with h5py.File(path, "a") as file:
        # h5py has written the names as str; TensorLayer's own readers want the bytes that it gave
        for group in (file, *(file[name] for name in file.attrs["layer_names"])):
            for key, names in group.attrs.items():
                group.attrs[key] = np.array(list(names), "S")
        for key, array in _arrays([part for part in parts if not isinstance(part, tl.models.Model)]).items():
            file.create_dataset(key, data=array)


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):  # 'hidden_1/hidden_1/weights:0' -> 'hidden_1/weights'
            arrays["/".join(name.split("/")[-2:]).split(":")[0]] = _finite(item[()])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except DAMAGE as error:
        raise UserError(f"{path} is damaged or no hdf5 file of weights ({error})") from None
    return arrays


def _finite(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError("weights must be finite numbers")
    return array
