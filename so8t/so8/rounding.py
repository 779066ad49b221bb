"""The types of a stored weight, and casting to them once: to nearest even, and never to what is not finite."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from so8t.errors import InputError

ITEM_BYTES: dict[str, int] = {"F32": 4, "F16": 2, "BF16": 2}
STORED: dict[str, Any] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# All bits of the exponent: infinite, or not a number.
EXPONENT = {"F16": np.uint16(0x7C00), "BF16": np.uint16(0x7F80)}
HALF_MAX = float(np.finfo(np.float16).max)


def widen(data: NDArray[Any]) -> NDArray[Any]:
    """Floats of what is stored: bf16 comes as its bits."""
    return (data.astype(np.uint32) << 16).view(np.float32) if data.dtype == STORED["BF16"] else data


@cache
def _halves() -> NDArray[np.float16]:
    """The F16 of each bf16: numpy rounds one by one, which takes three times as long as to look it up."""
    with np.errstate(over="ignore"):
        return widen(np.arange(1 << 16, dtype=np.uint16)).astype(np.float16)


def narrow(values: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """Cast once, to nearest even, bf16 as its bits; InputError where a value would not be finite."""
    result, odd = rounded(values, dtype)
    if odd is not None:
        raise beyond(name, dtype, int(odd.sum()), float(np.abs(values[odd]).max()))
    return result


def beyond(name: str, dtype: str, lost: int, largest: float) -> InputError:
    """The refusal of a tensor with `lost` values that a type cannot hold."""
    return InputError(
        f"{name}: {lost} value(s) are not finite as {dtype}; the largest is {largest:.6g}",
        f"finite values within {dtype}'s range" + (f", at most {HALF_MAX:g}" if dtype == "F16" else ""),
        "use a base whose weights fit",
    )


def rounded(values: NDArray[Any], dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Values in another type, and which of them are not finite there, if any.

    bf16 comes as uint16 bits, through float32 (numpy has no bf16): that differs from one rounding in ties only.
    """
    stored_bf16 = values.dtype == STORED["BF16"]
    if dtype == "BF16":
        result = values if stored_bf16 else _bf16_bits(values)
    elif dtype == "F16" and stored_bf16:
        result = np.take(_halves(), values)
    else:
        with np.errstate(over="ignore"):
            result = widen(values).astype(np.float16 if dtype == "F16" else np.float32, copy=False)
    odd = ~np.isfinite(result) if dtype == "F32" else (result.view(np.uint16) & EXPONENT[dtype]) == EXPONENT[dtype]
    return np.ascontiguousarray(result), odd if odd.any() else None


def _bf16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(values.astype(np.float32))
    bits = floats.view(np.uint32)
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    upper: NDArray[np.uint16] = ((bits + rounding) >> np.uint32(16)).astype(np.uint16)
    # Rounding up would make a zero of a NaN whose bits are all ones.
    upper[np.isnan(floats)] = EXPONENT["BF16"] | np.uint16(0x40)
    return upper
