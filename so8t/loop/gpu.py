"""Use, memory and temperature of the NVIDIA GPU that a training runs on, as its driver tells them (NVML)."""

from collections.abc import Callable
from typing import Any

import torch

Reading = dict[str, float | None]
ABSENT: Reading = {
    "gpu_percent": None,
    "gpu_memory_bytes": None,
    "gpu_memory_peak_bytes": None,
    "gpu_temperature_c": None,
}


class Gpu:
    """Reads one device; what the driver does not tell is None, never a made-up number."""

    def __init__(self, device: torch.device) -> None:
        """`device`: where the training runs; for the CPU all readings are None."""
        self._device = device if device.type == "cuda" else None
        self._handle = _handle(device) if self._device is not None else None

    def read(self) -> Reading:
        """Percent of the last sampling period in which a kernel ran; bytes that torch holds, now and at most; Celsius."""
        if self._device is None:
            return dict(ABSENT)
        return ABSENT | {
            "gpu_memory_bytes": torch.cuda.memory_allocated(self._device),
            "gpu_memory_peak_bytes": torch.cuda.max_memory_allocated(self._device),
            "gpu_percent": self._ask(lambda nvml: nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu),
            "gpu_temperature_c": self._ask(
                lambda nvml: nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU)
            ),
        }

    def _ask(self, question: Callable[[Any], float]) -> float | None:
        import pynvml

        if self._handle is None:
            return None
        try:
            return question(pynvml)
        except pynvml.NVMLError:
            return None


def _handle(device: torch.device) -> Any:
    """The driver's handle of torch's device; None without an NVIDIA driver.

    By UUID: CUDA_VISIBLE_DEVICES gives torch other numbers than the driver has.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None
