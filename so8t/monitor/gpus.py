"""Every NVIDIA GPU of the machine, as its driver tells (NVML). Without torch, which would take memory of the GPU."""

from typing import Any

Gpu = dict[str, Any]


def read() -> tuple[list[Gpu], str]:
    """Index, name, Celsius, used and total bytes of each; and why there is none, where there is none.

    What a driver does not tell is None.
    """
    try:
        import pynvml
    except ModuleNotFoundError:
        return [], "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], str(error)
    try:
        return [_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())], ""
    except pynvml.NVMLError as error:
        return [], str(error)
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> Gpu:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    gpu: Gpu = {"index": index, "name": nvml.nvmlDeviceGetName(device), "temperature_c": None, "used_bytes": None}
    try:
        gpu["temperature_c"] = nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        gpu |= {"used_bytes": int(memory.used), "total_bytes": int(memory.total)}
    except nvml.NVMLError_NotSupported:
        return gpu
    return gpu
