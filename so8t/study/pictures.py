"""Optuna's own plots of a study, and a Markdown page that carries them into the UI."""

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study

DPI = 80


def draw(study: "Study") -> dict[str, bytes]:
    """PNG files by name: what can be drawn of this study with Optuna's matplotlib backend."""
    import matplotlib as mpl

    mpl.use("Agg")
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as plots

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return {}
    wanted: dict[str, Callable[[Any], Any]] = {"history": plots.plot_optimization_history}
    if len(done) > 1:
        wanted["slice"] = plots.plot_slice
    if any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        wanted["intermediate"] = plots.plot_intermediate_values
    # Importances are of differences: there are none within one trial, or within equal values.
    if len({trial.value for trial in done}) > 1 and len(done[0].params) > 1:
        wanted |= {"parallel": plots.plot_parallel_coordinate, "importances": plots.plot_param_importances}
    return {f"{name}.png": _png(plot, study) for name, plot in wanted.items()}


def _png(plot: Callable[[Any], Any], study: "Study") -> bytes:
    import matplotlib.pyplot as plt
    import numpy as np
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        # Optuna calls its whole matplotlib backend experimental.
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Few trials may share a value.
        warnings.filterwarnings("ignore", message="Attempting to set identical", category=UserWarning)
        axes = plot(study)
    figure = np.ravel(axes)[0].figure
    try:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()
    finally:
        plt.close(figure)


def page(text: str, pictures: Mapping[str, bytes]) -> str:
    """Markdown with the pictures inside it: a page of the UI has no files beside it."""
    shown = [
        f"![{name}](data:image/png;base64,{base64.b64encode(data).decode('ascii')})" for name, data in pictures.items()
    ]
    return "\n\n".join([text.rstrip(), *shown]) + "\n"
