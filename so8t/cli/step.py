"""`so8t step NAME`: one step, in this process."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from so8t.cli import add_config_arguments, raise_on_signals
from so8t.errors import ConfigError

if TYPE_CHECKING:
    from so8t.artifacts import Artifact
    from so8t.config import Config
    from so8t.progress import Sink
    from so8t.step import Ref

# torchrun says by it who is who.
RANK = "RANK"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", help="collect, preprocess, train, bake, benchmark, upload, cleanup, or a part of one")
    parser.add_argument("--part", default="", help="which part, for steps that have parts (collect.source, ...)")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="train and four_class only: go on from the newest checkpoint that verifies (auto, the default) or from this folder",
    )
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="bake only: an adapter folder of ours or of PEFT's (LoRA, OFT), without the steps before")  # fmt: skip
    parser.add_argument("--base", type=Path, metavar="DIR", help="bake only: the folder of the Phi-3 model that the adapter was trained on")  # fmt: skip
    parser.add_argument(
        "--model-name",
        default="",
        metavar="NAME",
        help="with --adapter: the baked model's name (default: bake.fold.name)",
    )
    parser.add_argument("--gguf-only", action="store_true", help="with --adapter: no stock folder for transformers; half as much is written")  # fmt: skip
    parser.add_argument("--progress-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--error-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-with-stdin", action="store_true", help=argparse.SUPPRESS)
    add_config_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Make the step's artifact, or say that it is there."""
    from so8t import child, hang, stacks
    from so8t.artifacts import Store
    from so8t.config import load_config
    from so8t.progress import JsonLines, PlainLines, Sink
    from so8t.step import Ref, assist, steps

    raise_on_signals()
    known = steps().get(options.name)
    if known is not None and not known.child:
        # As under `so8t run`: sums over threads round differently.
        os.environ["OMP_NUM_THREADS"] = "1"
    if options.die_with_stdin:
        child.die_with_stdin()
    if options.progress_file:
        stacks.answer(options.progress_file)
        hang.heed(options.progress_file)
    try:
        config = load_config(options.config, [*options.overrides, *_resume(options)], options.home)
        ref = Ref(options.name, options.part)
        if os.environ.get(RANK, "0") != "0":
            assist(ref, config, Store(config.home()))
            return 0
        sink: Sink = JsonLines(options.progress_file) if options.progress_file else PlainLines()
        asked = options.adapter or options.base or options.model_name or options.gguf_only
        artifact = _bake_alone(options, config, (sink,)) if asked else _make(ref, config, (sink,))
    except BaseException as error:
        # Of several processes the first to fail says why; the others then only miss it.
        if options.error_file and not (os.environ.get("WORLD_SIZE") and options.error_file.exists()):
            child.leave_error(options.error_file, error)
        raise
    manifest = artifact.manifest
    if options.json:
        sys.stdout.write(json.dumps(manifest.model_dump(mode="json", exclude={"packages"}), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{options.name}: content {manifest.content[:12]}  {artifact.path}\n")
    return 0


def _bake_alone(options: argparse.Namespace, config: "Config", sinks: "tuple[Sink, ...]") -> "Artifact":
    """A bake without the steps before; ConfigError where that is not what was said."""
    if options.name != "bake" or options.adapter is None or options.base is None:
        raise ConfigError(
            "--adapter, --base, --model-name or --gguf-only", "so8t step bake with both --adapter DIR and --base DIR"
        )
    from so8t.artifacts import Store
    from so8t.bake.alone import Request, bake_alone

    request = Request(options.base.absolute(), options.adapter.absolute(), options.model_name, not options.gguf_only)
    return bake_alone(config, Store(config.home()), request, sinks)


def _make(ref: "Ref", config: "Config", sinks: "tuple[Sink, ...]") -> "Artifact":
    """Here and now, or by torchrun where several processes share the step and none has been started for it yet."""
    from so8t import child
    from so8t.artifacts import Store
    from so8t.attempt import logs_of
    from so8t.step import execute

    store = Store(config.home())
    if RANK in os.environ or child.processes_of(ref, config) == 1:
        return execute(ref, config, store, sinks)
    return child.run(ref, config, store, sinks, logs_of(store.home))


def _resume(options: argparse.Namespace) -> list[str]:
    """The option as an override; ConfigError for another step."""
    if options.resume is None:
        return []
    from so8t.step import trainings

    if options.name not in trainings():
        raise ConfigError(f"--resume with {options.name}", f"one of {', '.join(trainings())}", "leave --resume out")
    chosen = options.resume if options.resume == "auto" else str(Path(options.resume).absolute())
    return [f"machine.resume={json.dumps(chosen)}"]
