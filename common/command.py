"""The command line: a dataclass becomes flags, and what the user got wrong becomes one clear line."""

import contextlib
import dataclasses
import importlib.util
import inspect
import io
import itertools
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn, get_type_hints

if missing := [name for name in ("tyro", "gym", "platformdirs", "tensorflow") if not importlib.util.find_spec(name)]:
    activate = r".venv\Scripts\activate" if sys.platform == "win32" else "source .venv/bin/activate"
    print(
        f"error: {sys.executable} has no {' and no '.join(missing)}: type 'make train' in the project's folder once"
        f" (without make: see README.md), then '{activate}'",
        file=sys.stderr,
    )
    sys.exit(2)

import tyro


class UserError(Exception):
    """Something that the user can put right; shown as one line, exit status 2."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Annotation of a flag's value: low <= value <= high, or above < value <= high where `above` is given."""

    low: float = float("-inf")
    high: float = float("inf")
    above: float = float("-inf")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and self.above < value

    def __str__(self) -> str:
        if self.above > float("-inf"):
            return f"greater than {self.above:g}" + (f" and at most {self.high:g}" if self.high < float("inf") else "")
        if self.high == float("inf"):
            return f"at least {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"


Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1)]


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags that every algorithm's command has."""

    train: bool = False
    """Learn, then save the weights, the curve and the table of episodes."""
    test: bool = False
    """Play greedily with the trained weights, or with the shipped ones if nothing was trained yet."""
    env: str = ""
    """Environment id; the book's spelling (Pendulum-V0) is understood."""
    no_unhealthy: bool = False
    """In MuJoCo's Ant, Hopper, Humanoid and Walker2d: an episode goes on after a fall."""
    seed: Annotated[int, Range(0)] = 0
    """Seed of everything random: the same seed repeats the same run (not a3c's with several workers, nor --ray)."""
    episodes: Count | None = None
    """Stop training after this many episodes."""
    steps: Count | None = None
    """Stop training at the end of the episode in which this many environment steps are reached."""
    test_episodes: Count = 10
    """How many episodes --test plays."""
    render: bool = False
    """Watch while training (slow; needs a display)."""
    record: Path | None = None
    """With --test: write the first episode to this .gif or .mp4 file."""
    out: Path = Path(".")
    """The folder that gets model/ and image/."""
    hdf5: bool = False
    """Save the weights as hdf5 (TensorLayer's layout) instead of npz."""
    resume: bool = False
    """Go on with the training run that --out holds."""
    logdir: Path | None = None
    """Also write the curve, and what updates report, for TensorBoard here."""

    @property
    def algorithm(self) -> str:
        """The name of the algorithm's folder."""
        return Path(inspect.getfile(type(self))).resolve().parent.name

    @property
    def file_name(self) -> str:
        """The environment's id, as far as every system allows it in a file's name."""
        return re.sub("[/:]", "-", self.env)

    @property
    def model_folder(self) -> Path:
        """Where the weights, the configuration and the table of episodes go."""
        return self.out / "model" / self.algorithm / self.file_name

    @property
    def pretrained_folder(self) -> Path:
        """The weights that come with the repository."""
        return Path(inspect.getfile(type(self))).resolve().parent / "pretrained" / self.file_name

    def run_settings(self) -> dict:
        """What a training run depends on: environment, seed, budget and hyperparameters."""
        shared = {field.name for field in dataclasses.fields(Options)} - {"env", "seed", "episodes", "steps"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in shared}

    def image_file(self, suffix: str) -> Path:
        """Where a picture of this algorithm on this environment goes."""
        return self.out / "image" / f"{self.algorithm}_{self.file_name}{suffix}"


def parse(config_class: type, presets: dict[str, dict]):
    """Read the command line into `config_class`.

    presets: for an environment id, the values that differ there from the class's defaults;
        what the user gives explicitly wins over both.
    Raises UserError with one line on an unknown flag, a wrong type or an impossible value.
    """
    from common import environments  # gym loads only once the flags are being read

    given = _value_of("--env", sys.argv[1:]) or config_class.env
    env_id = environments.current_id(given)
    preset = presets.get(env_id.removesuffix(environments.NO_UNHEALTHY), {})
    default = config_class(env=env_id, **preset)
    limits = ("steps", "episodes")
    if asked := [name for name in limits if _value_of(f"--{name}", sys.argv[1:])]:  # they replace the default's limits
        default = dataclasses.replace(default, **{name: None for name in limits if name not in asked})
    config = read(config_class, _ray_here(sys.argv[1:]), default=default)
    if env_id != given:
        print(f"{given} of the book is {env_id} today.")
    if config.no_unhealthy:
        env_id = environments.without_unhealthy(env_id)
    config = dataclasses.replace(config, env=env_id, render=config.render and config.train)
    _check(config)
    if config.train and not config.steps and _value_of("--end-lr", sys.argv[1:]) and config.end_lr < 1:
        raise UserError("--end-lr is what is left at the end of --steps: give --steps a number")
    return config


def read(cls: type, arguments: list[str], **defaults):
    """The flags as an object of the dataclass `cls`. Raises UserError with one line on what can't be read."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, args=arguments, config=(tyro.conf.FlagCreatePairsOff,), **defaults)
    except SystemExit as stop:
        if stop.code:
            raise UserError(_one_line(complaint.getvalue())) from None
        raise


def keywords(config: Options, cls: type) -> dict:
    """The hyperparameters that `cls` names as arguments, taken from `config` by name."""
    return {name: getattr(config, name) for name in inspect.signature(cls).parameters if hasattr(config, name)}


def run(main) -> NoReturn:
    """Run a command's `main` and turn what goes wrong into one line and an exit status."""
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of a run that is about to stop at a NaN
    if hasattr(sys.stdout, "reconfigure"):  # a path may have letters that a redirected output has not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        print(f"error: there is not enough memory: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _value_of(flag: str, arguments: list[str]) -> str:
    """The value of `--a-flag value`, `--a-flag=value` or, as tyro takes it too, `--a_flag`; the last one counts."""
    value = ""
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, given = word.partition("=")
        if name.replace("_", "-") == flag and (equals or not following.startswith("--")):
            value = given if equals else following
    return value


def _ray_here(arguments: list[str]) -> list[str]:
    """`--ray` without an address means this machine."""
    return ["--ray=local" if word == "--ray" and not _value_of(word, arguments) else word for word in arguments]


def _one_line(box: str) -> str:
    """The message of tyro's error box, without the box, the flag's help and the footer."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)  # on a terminal it has colours
    lines = [line.strip("│| ") for line in plain.splitlines()]
    paragraphs = " ".join("\n" if set(line) <= set("─-╭╮╰╯") else line for line in lines[1:])
    message, *hints = (text.strip() for text in paragraphs.strip().split("\n"))
    suggestion = next((hint for hint in hints if hint.startswith("Perhaps you meant")), "")
    words = suggestion.split()
    nearest = next((word for word in words if word.startswith("--")), "")
    return message.rstrip(".") + (f" (perhaps you meant {nearest})" if nearest else "") + "; --help lists the flags"


def _check(config: Options) -> None:
    """What the types do not say: ranges, and flags that need each other."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value, flag = getattr(config, name), "--" + name.replace("_", "-")
        for limits in _ranges(hint):
            values = value if isinstance(value, tuple) else (value,)
            if value is not None and not all(each in limits for each in values):
                raise UserError(f"{flag} must be {limits}, not {value}")
    if not (config.train or config.test):
        raise UserError("say what to do: --train, --test or both (--help lists the flags)")
    if not (config.steps or config.episodes):
        raise UserError("training needs an end: give --steps or --episodes a number")
    if config.record and not config.test:
        raise UserError("--record films the test: give --test too")
    if config.record and config.record.suffix not in (".gif", ".mp4"):
        raise UserError(f"--record writes .gif or .mp4, not '{config.record}'")
    if config.resume and not config.train:
        raise UserError("--resume goes on with training: give --train too")
    if config.render and getattr(config, "ray", None):
        raise UserError("--render shows what this process plays, and with --ray others play: leave one of them out")


def _ranges(hint) -> list[Range]:
    """The Range annotations anywhere in a type hint: in Optional[...] and tuple[...] too."""
    found = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)]
    for inner in getattr(hint, "__args__", ()):
        found += _ranges(inner)
    return found
