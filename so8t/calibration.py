"""Makes probabilities honest by one temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

Legend: N rows, C classes; probabilities [N, C], labels [N].
"""

import numpy as np


def tempered(probabilities: "np.ndarray", temperature: float) -> "np.ndarray":
    """softmax(logits / T), from the probabilities at T = 1."""
    powered = np.maximum(probabilities, 1e-12) ** (1.0 / temperature)
    whole: np.ndarray = powered / powered.sum(axis=1, keepdims=True)
    return whole


def fit_temperature(probabilities: "np.ndarray", labels: "np.ndarray") -> float:
    """The temperature that minimises the negative log-likelihood, within [0.05, 20]."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        whole = tempered(probabilities, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(whole[np.arange(len(labels)), labels], 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))
