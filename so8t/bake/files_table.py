"""What each file costs and loses, one line a file: for the UI, the manifest and the model card."""

from pathlib import Path
from typing import Any

from so8t import durable
from so8t.bake.parity import Parity

COLUMNS = {
    "file": "file", "size_bytes": "MB", "bits_per_weight": "bits a weight", "kl": "mean KL", "top1": "top-1",
    "perplexity_ratio": "perplexity ratio", "fallbacks": "fallbacks", "memory_peak_bytes": "MB of memory",
    "prompt_tokens_per_s": "tokens/s read", "new_tokens_per_s": "tokens/s written", "on": "on", "threads": "threads",
}  # fmt: skip
MEGABYTES = frozenset({"size_bytes", "memory_peak_bytes"})


def file_row(path: Path, parity: Parity, quantized: dict[str, Any], speed: dict[str, Any]) -> dict[str, Any]:
    """The line of one model file; `quantized` are the facts of the step that made it, empty for F16."""
    return {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "bits_per_weight": quantized.get("bits_per_weight", 16.0),
        "kl": parity.kl,
        "top1": parity.top1,
        "perplexity_ratio": parity.perplexity_ratio,
        "difference_max": parity.difference_max,
        "tensor_types": quantized.get("tensor_types", {}),
        "fallbacks": len(quantized.get("fallbacks", [])),
        **speed,
    }


def write_model_files(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write model_files.md."""
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    lines = ["# Files", "", f"| {' | '.join(COLUMNS[name] for name in names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(_cell(name, row.get(name, '-')) for name in names)} |" for row in rows]
    lines += [
        "",
        "KL, top-1 and perplexity against the live adapter model. Memory and speed as measured here, on this machine.",
    ]
    durable.write_text(out / "model_files.md", "\n".join(lines) + "\n")


def _cell(name: str, value: Any) -> str:
    if name in MEGABYTES and isinstance(value, int):
        return f"{value / 1e6:.1f}"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
