"""A training's numbers in TensorBoard or trackio, on this machine and without a network.

A tracker is a view of the history, which the checkpoint holds. So each start of a training throws the run's points
away and gives them again up to its checkpoint: no point is there twice after a resume, and none is lost with a
process that was killed before it had flushed.
"""

import contextlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from so8t import durable
from so8t.errors import ConfigError

Kind = Literal["tensorboard", "trackio"]
TRACKIO_PROJECT = "so8t"


class Tracker(Protocol):
    """Takes points of one run."""

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Values by name at a step."""

    def flush(self) -> None:
        """Have a viewer see what was added."""

    def close(self) -> None:
        """The training ends here, for now."""


class TensorBoard:
    """Event files in `progress_logs/tensorboard/<session>/`."""

    def __init__(self, folder: Path, run: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise absent("tensorboard", error) from None
        place = folder / "tensorboard" / run
        durable.make_folder(place)
        for path in place.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer = SummaryWriter(str(place))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """See `Tracker`."""
        self._writer.flush()

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class Trackio:
    """A run of the project `so8t` in `progress_logs/trackio/`, or where TRACKIO_DIR says."""

    def __init__(self, folder: Path, run: str) -> None:
        # trackio reads it when it is imported.
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        try:
            import trackio
        except ImportError as error:
            raise absent("trackio", error) from None
        # It greets on standard output, which is the command's own.
        with contextlib.redirect_stdout(io.StringIO()):
            for earlier in _runs(trackio):
                if earlier.name == run:
                    earlier.delete()
            self._run = trackio.init(
                project=TRACKIO_PROJECT, name=run, resume="never", embed=False, auto_log_gpu=False, auto_log_cpu=False
            )

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(numbers), step=step)

    def flush(self) -> None:
        """trackio's own thread writes every half second."""

    def close(self) -> None:
        """See `Tracker`."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


def _runs(trackio: Any) -> list[Any]:
    try:
        return list(trackio.Api().runs(TRACKIO_PROJECT))
    except ValueError:
        # That is how it says that there is no such project yet.
        return []


KINDS: dict[Kind, type[TensorBoard] | type[Trackio]] = {"tensorboard": TensorBoard, "trackio": Trackio}


class Trackers:
    """All that `machine.trackers` names; nothing where it names none."""

    def __init__(self, kinds: Iterable[Kind], folder: Path, run: str) -> None:
        """ConfigError for one whose package is not installed."""
        self._open: list[Tracker] = [KINDS[kind](folder, run) for kind in kinds]

    def rebuild(self, history: Iterable[Mapping[str, Any]], measured: Iterable[Mapping[str, Any]]) -> None:
        """Give again what happened up to the checkpoint: the history's rows and the progress lines."""
        if self._open:
            for row in history:
                self.row(row)
            for line in measured:
                self.line(line)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of the history, as `<phase>/<name>`."""
        phase = row["phase"]
        numbers = {f"{phase}/{name}": value for name, value in row.items() if name not in {"phase", "position", "step"}}
        for tracker in self._open:
            tracker.add(row["step"], numbers)

    def line(self, line: Mapping[str, Any]) -> None:
        """The machine's share of a progress line, as `machine/<name>`."""
        if self._open:
            numbers = {f"machine/{name}": line[name] for name in MEASURED if line.get(name) is not None}
            for tracker in self._open:
                tracker.add(line["step"], numbers)
                tracker.flush()

    def close(self) -> None:
        """Write out what is left."""
        for tracker in self._open:
            tracker.close()


MEASURED = (
    "tokens_per_s", "eta_phase_s", "cpu_percent", "rss_bytes",
    "gpu_percent", "gpu_memory_bytes", "gpu_memory_peak_bytes", "gpu_temperature_c",
)  # fmt: skip


def absent(package: str, error: ImportError) -> ConfigError:
    """What to say where a tracker's package is not installed."""
    return ConfigError(
        f"{package} is asked for (machine.trackers, so8t dashboard), and cannot be imported ({error})",
        f"the package {package}",
        f'pip install -c constraints.txt -e ".[{package}]", or leave it out of machine.trackers',
    )
