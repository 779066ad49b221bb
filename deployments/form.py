"""What of the config the run form of the UI shows.

The whole config is 43 screens long, and Prefect's form folds nothing. So of the sections below it shows what most runs
change. Every other key stays in the schema, where the server checks it as before, as a pattern instead of a property,
which the form does not draw; a run keeps the deployment's value of it, and "Use JSON Input" shows and changes them all.
"""

import re
from typing import Any

HINT = "What most runs change. Every other key of the config: the menu beside this one, Use JSON Input."
# Sections and keys by the name of their class; a class that is not named here is shown whole.
TRAINED = ("targets", "output", "input", "rank")
PIPELINE: dict[str, tuple[str, ...]] = {
    "Config": (
        "base",
        "collect",
        "preprocess",
        "search",
        "train",
        "bake",
        "benchmark",
        "upload",
        "cleanup",
        "machine",
        "notify",
    ),
    "DemoBase": ("kind", "seed", "steps"),
    "Collect": ("sources",),
    "DemoSource": ("kind", "name", "set"),
    "HubSource": ("kind", "name", "id", "revision", "files", "columns", "language", "label", "rows_max", "nsfw"),
    "HubQuery": ("kind", "name", "language", "datasets_max", "rows_max"),
    "WebSource": ("kind", "name", "seeds", "sites", "contact", "rows_target", "pages_max", "depth_max"),
    "Preprocess": ("languages", "classifier", "splits_of"),
    "Search": ("trials",),
    "Train": ("seed", "adapter", "warmup", "ppo"),
    "Adapter": TRAINED,
    "Warmup": ("steps", "batch_text", "batch_image", "learning_rate"),
    "Ppo": ("algorithm", "updates", "batch", "max_new_tokens", "learning_rate"),
    "Bake": ("fold", "quantizations"),
    "Fold": ("name",),
    "Benchmark": ("tasks", "judge", "items_max"),
    "Upload": ("target", "licence", "tags"),
    "Cleanup": ("apply", "keep_per_step"),
    "Machine": ("device", "workers", "checkpoint_interval_s", "progress_log_interval_s", "trackers"),
    "Notify": ("sound", "quiet_hours"),
}
FOUR_CLASS: dict[str, tuple[str, ...]] = {
    **PIPELINE,
    "Config": ("base", "collect", "preprocess", "four_class", "machine", "notify"),
    "FourClass": ("seed", "data", "adapter", "epochs", "max_seq_length", "micro_batch", "learning_rate", "head_learning_rate"),
    "Data": ("train_data", "val_data", "prompt_key", "label_key", "absent_class"),
}  # fmt: skip
SHOWN = {"so8t-pipeline": PIPELINE, "so8t-four-class": FOUR_CLASS}


def short(schema: dict[str, Any], flow: str) -> dict[str, Any]:
    """The parameter schema of a flow, with what is rarely changed out of the form; it takes and refuses the same values."""
    if flow not in SHOWN:
        return schema
    shown = SHOWN[flow]
    definitions = {
        name: _shortened(definition, shown[name]) if name in shown else definition
        for name, definition in schema["definitions"].items()
    }
    config = {**schema["properties"]["config"], "description": HINT}
    return {**schema, "definitions": definitions, "properties": {**schema["properties"], "config": config}}


def _shortened(definition: dict[str, Any], shown: tuple[str, ...]) -> dict[str, Any]:
    properties = definition["properties"]
    return {
        **definition,
        "properties": {name: properties[name] for name in shown},
        "patternProperties": {f"^{re.escape(name)}$": properties[name] for name in properties if name not in shown},
    }
