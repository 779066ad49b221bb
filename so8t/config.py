"""The whole config: joins the steps' sections and says clearly what is wrong with a file."""

import difflib
import os
import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from so8t.bake.config import Bake
from so8t.benchmark.config import Benchmark
from so8t.cleanup.config import Cleanup
from so8t.collect.config import Base, Collect
from so8t.errors import ConfigError
from so8t.four_class.config import FourClass
from so8t.monitor.config import Monitor
from so8t.preflight.config import Preflight
from so8t.preprocess.config import Preprocess
from so8t.recovery.config import Recovery
from so8t.search.config import Search, SearchRun, section
from so8t.section import Section, UserPath
from so8t.train.config import Train
from so8t.upload.config import Upload

HOME_VARIABLE = "SO8T_HOME"


class Machine(Section):
    """What does not change the bytes of any artifact; outside every key."""

    home: UserPath | None = None
    """Where everything is kept. Default: $SO8T_HOME, else ~/.so8t."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto takes CUDA where torch finds it."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Mapped tasks (sources, quantizations, benchmark cells) at a time."""
    task_runner: Literal["threads", "dask"] = "threads"
    """Where preprocess masks and measures its shards: in threads of the flow's process, or in `workers` processes of a
    local Dask cluster, which wants the extra of its name."""
    max_parallel_downloads: Annotated[int, Field(ge=1)] = 4
    """Files that are fetched from the Hub at a time, over all tasks and processes of this home."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads a step's process may use; 0 takes the machine's cores."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Processes that share the train step, started by torchrun: on GPUs one for each, on a CPU for trying it out. As
    with another card, a training ends in other bytes than with one."""
    checkpoint_interval_s: Annotated[float, Field(gt=0)] = 180.0
    """Between two rolling checkpoints."""
    checkpoint_keep: Annotated[int, Field(ge=2)] = 5
    """Rolling checkpoints kept."""
    checkpoint_stall_share: Annotated[float, Field(gt=0, le=1)] = 0.0005
    """Share of the time that training may wait for its checkpoints; they become rarer where it would wait longer."""
    resume: str = "auto"
    """auto goes on from the newest checkpoint that verifies; the folder of a checkpoint goes on from that one, once."""
    server_port: Annotated[int, Field(ge=0, le=65535)] = 4207
    """Port of the local Prefect server on 127.0.0.1; 0 takes a free one."""
    step_timeout_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600.0
    """A step that takes longer than this is stopped."""
    resume_interval_s: Annotated[float, Field(gt=0)] = 30.0
    """Between two looks of `so8t up` for runs whose process is gone."""
    progress_interval_s: Annotated[float, Field(gt=0)] = 5.0
    """Between two plain progress lines and two updates of the UI."""
    progress_log_interval_s: Annotated[float, Field(gt=0)] = 180.0
    """Between two lines in progress_logs/ of a training; each of its phases has a last line in any case."""
    trackers: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Where a training's numbers are shown beside the UI, both on this machine; each wants the extra of its name."""
    samples_every: Annotated[int, Field(ge=0)] = 50
    """Steps of the warm-up and updates of PPO between two samples of what the model writes; 0 writes none."""
    sample_tokens: Annotated[int, Field(ge=1)] = 96
    """Longest sample."""
    micro_batch_max: Annotated[int, Field(ge=0)] = 0
    """Samples a pass of train and train.search at most, whatever their micro_batch says; the effective batch stays. 0
    sets no limit. Preflight sets it for a run that would not fit."""
    save_memory: bool = False
    """Recompute activations in the backward pass even where train.adapter.gradient_checkpointing is false. Preflight sets
    it too."""


class Resume(Section):
    """How `so8t up` treats a run whose process is gone. Outside every key."""

    auto: bool = True
    """Go on with this run by itself; false leaves it Crashed."""
    confirm: bool = False
    """Wait for `so8t resume RUN` before going on."""
    attempts_max: Annotated[int, Field(ge=1)] = 3
    """Crashes in a row without a new checkpoint, finished task or further step before it stops and notifies."""
    backoff_s: Annotated[float, Field(ge=0)] = 30.0
    """Pause after the second such crash in a row; doubles with each further one. A power cut waits for nothing."""
    expiry_days: Annotated[float, Field(gt=0)] = 7.0
    """A run without progress for as long is left alone."""
    priority: int = 0
    """Among several interrupted runs the highest goes first, then the one with the newest progress."""


class Notify(Section):
    """How the user is told of what needs him; remote addresses stand in SO8T_NOTIFY_URLS. Outside every key."""

    sound: bool = True
    """Play a sound, or ring the terminal's bell where no player works."""
    on: tuple[Literal["completed", "failed", "resume", "monitor"], ...] = ("completed", "failed", "resume", "monitor")
    """Of what: a run that completed, one that failed, one that was not resumed, what the monitor found or did."""
    quiet_hours: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d)?$")] = ""
    """Such as 22:00-07:00, by this machine's clock: no sound then, and remote addresses are told only of what went wrong."""


class Config(Section):
    """Everything a run needs, one section a step."""

    base: Base
    collect: Collect
    preprocess: Preprocess = Preprocess()
    search: Search = Search()
    train: Train = Train()
    bake: Bake = Bake()
    benchmark: Benchmark = Benchmark()
    four_class: FourClass = FourClass()
    upload: Upload = Upload()
    cleanup: Cleanup = Cleanup()
    machine: Machine = Machine()
    resume: Resume = Resume()
    recovery: Recovery = Recovery()
    notify: Notify = Notify()
    monitor: Monitor = Monitor()
    preflight: Preflight = Preflight()

    @model_validator(mode="after")
    def _base_has_partners(self) -> Self:
        """What the base is compared with in a file must be baked in that type."""
        types = self.base_types()
        if odd := sorted({*types} - {"F16", *self.bake.quantizations}):
            raise ValueError(f"benchmark.base_types has {', '.join(odd)}, which bake.quantizations has not")
        named = [contrast.name for contrast in self.benchmark.contrasts if contrast.against == "A-*"]
        if named and self.bake.quantizations and not {*types} & {*self.bake.quantizations}:
            raise ValueError(
                f"the contrast {named[0]!r} is against A-*, and no type of bake.quantizations is in benchmark.base_types: "
                "name one there (a guided type cannot be: its guide is the trained model's), or declare other contrasts"
            )
        return self

    @model_validator(mode="after")
    def _waits_are_no_stalls(self) -> Self:
        """A run that waits for its retry reports nothing meanwhile."""
        longest_s = 1.5 * self.recovery.retry_delay_s
        if self.monitor.recover and longest_s >= 2 * 60 * self.monitor.stall_minutes:
            raise ValueError(
                f"a retry may wait {longest_s:.0f} s (1.5 times recovery.retry_delay_s), and after twice "
                f"monitor.stall_minutes = {self.monitor.stall_minutes:g} the run would be ended as one that hangs"
            )
        return self

    def base_types(self) -> list[str]:
        """As files of which types the base is asked."""
        if self.benchmark.base_types is not None:
            return list(self.benchmark.base_types)
        plain: list[str] = [name for name in self.bake.quantizations if not self.bake.quantize(name).guided]
        return plain[:1]

    def home(self) -> Path:
        """The home in force, absolute."""
        chosen = self.machine.home or os.environ.get(HOME_VARIABLE) or Path.home() / ".so8t"
        return Path(chosen).expanduser().absolute()

    def search_run(self) -> SearchRun:
        """The section of the step train.search, which trains too."""
        return section(self.search, self.train)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-5 as a string; both 1e-5 and 1.0e-5 are floats here."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$|^[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Safe YAML with sane floats."""
    # _Loader is a SafeLoader: it builds plain values only.
    return yaml.load(text, Loader=_Loader)  # noqa: S506


def load_config(path: Path, overrides: Sequence[str] = (), home: Path | None = None) -> Config:
    """Read a YAML file, apply its profile, then `a.b=c` overrides, and check everything; ConfigError says what to mend.

    `profiles: {NAME: {section: ...}}` holds settings for a kind of machine; `profile: NAME` or `--profile NAME`
    chooses. Neither is a key of the config in force: what a profile sets counts like what the file sets. A relative
    path is taken from the file's folder, wherever it stands.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}", "a YAML file", "see configs/ for examples") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"cannot read {path}: {error}", "a UTF-8 YAML file") from None
    try:
        data = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}", "a UTF-8 YAML file") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}", "a mapping of sections")
    chosen = [override for override in overrides if override.startswith("profile=")]
    for override in chosen:
        apply_override(data, override)
    _apply_profile(data, str(path))
    for override in overrides:
        if override not in chosen:
            apply_override(data, override)
    if home is not None:
        data["machine"] = {**(data.get("machine") or {}), "home": str(home.expanduser().absolute())}
    return check(data, str(path), path.absolute().parent)


def profile_names(path: Path) -> list[str]:
    """The profiles of a file that loads, in its order."""
    data = parse_yaml(path.read_text(encoding="utf-8-sig"))
    found = data.get("profiles") if isinstance(data, dict) else None
    return [str(name) for name in found] if isinstance(found, dict) else []


def _apply_profile(data: dict[str, Any], origin: str) -> None:
    """Put the chosen profile's settings over the file's own, and forget both keys."""
    profiles, chosen = data.pop("profiles", None) or {}, data.pop("profile", None)
    if chosen is None:
        return
    # YAML reads 12 as a number, and a file may name a profile so.
    known = {str(name): settings for name, settings in profiles.items()} if isinstance(profiles, dict) else {}
    if not isinstance(known.get(str(chosen)), dict):
        raise ConfigError(
            f"{origin}: profile {chosen!r}", f"one of {', '.join(known)}" if known else "a file that has profiles"
        )
    _merge(data, known[str(chosen)])


def _merge(below: dict[str, Any], over: dict[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _merge(below[name], value)
        else:
            below[name] = value


def check(data: dict[str, Any], origin: str, folder: Path | None = None) -> Config:
    """Validate; every fault is listed at once, with the nearest valid name for an unknown key.

    Relative paths are taken from `folder`; without one they stay as they are.
    """
    try:
        return Config.model_validate(data, context={"folder": folder} if folder else None)
    except ValidationError as error:
        faults = [_explain(fault) for fault in error.errors(include_url=False)]
        raise ConfigError(
            f"{origin}: {len(faults)} fault(s)\n" + "\n".join("  - " + fault for fault in faults),
            "the keys and types that `so8t config schema` prints",
            "mend the file or the --set, then try `so8t config check FILE`",
        ) from None


def _explain(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        siblings = _fields_at(Config, fault["loc"][:-1])
        nearest = difflib.get_close_matches(str(fault["loc"][-1]), siblings, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; valid: {', '.join(sorted(siblings))}"
        return f"{where}: unknown key{hint}"
    if fault["type"] == "missing":
        return f"{where}: required, but absent"
    return f"{where}: {fault['msg']}, found {fault['input']!r}"


def _fields_at(model: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the section at `loc`; union tags and list indices are stepped over."""
    models = _models(model)
    for part in loc:
        inner = [
            m
            for model in models
            if part in model.model_fields
            for m in _models(model.model_fields[str(part)].annotation)
        ]
        tagged = [
            m for m in models if part in [getattr(f.default, "value", f.default) for f in m.model_fields.values()]
        ]
        models = inner or tagged or models
    return sorted({name for model in models for name in model.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict, Annotated):
        return [model for inner in get_args(annotation) for model in _models(inner)]
    return []


def apply_override(data: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c`; the value is read as YAML."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"override {override!r}", "the form section.key=value", "for example --set train.seed=1")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: {error}", "a YAML value after =") from None
    place: Any = data
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(place, list):
            if not key.isdigit() or int(key) >= len(place):
                raise ConfigError(f"override {override!r}: {key!r}", f"an index below {len(place)}")
            index: Any = int(key)
        elif isinstance(place, dict):
            index = key
            if not last and not isinstance(place.get(key), dict | list):
                place[key] = {}
        else:
            raise ConfigError(f"override {override!r}: {'.'.join(keys[:position])} holds a plain value", "a section")
        if last:
            place[index] = value
        else:
            place = place[index]
