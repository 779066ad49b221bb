"""PPO on Phi-3.5-mini's whole geometry on this machine's GPU: memory, speed, stalls and an exact resume, in minutes.

    python -m benchmarks.gpu.phi35 [--profiles 12gb 24gb] [--json FILE] [--place DIR]
    python -m benchmarks.gpu.phi35 --tiny --device cpu

The base is made on the spot: 32 layers, random weights, 7.6 GB in a temporary folder (`--place`), and rows of text and
images. Each profile of configs/borea_phi35.yaml is trained as the train step does it, without the phases before and
after PPO, in processes of their own: once undisturbed; once more, killed (SIGKILL) after the first checkpoint inside
an update and started again. Told are the peak of the allocator beside what `so8t plan` says, tokens a second of a whole
update, the stall of checkpoints, and whether the killed training ends in the bytes of the undisturbed one. Where TRL
1.12 is installed it makes updates of the same size on the same card (trl_side.py); it has no 4-bit critic, no images
and no resume. Exit code 2 without CUDA, 1 where a resume is not exact.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_phi3 import make_base, make_rows
from so8t import durable
from so8t.artifacts import Artifact, Manifest, hash_file
from so8t.config import Config, load_config
from so8t.plan.geometry import of_json, tower_of
from so8t.plan.memory import Need, Shapes, rollout_need, update_need
from so8t.progress import Progress

CONFIG = Path(__file__).parents[2] / "configs" / "borea_phi35.yaml"
GIB = 1 << 30
LAYERS, ROWS = 32, 8
TINY_LAYERS = 2
TINY_SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 128}
# Of the larger profiles too: the time allowed is for two updates of each.
COMMON = (
    "train.vision.epochs=0", "train.align.steps=0", "train.warmup.steps=0", "train.alpha.trials=0",
    "train.head.steps=0", "train.ppo.evaluation_prompts=1", "train.ppo.evaluation_every=0",
    "train.ppo.anchor.prompts=0", "machine.checkpoint_stall_share=1", "machine.samples_every=0",
)  # fmt: skip
TINY = (
    "train.adapter.base_dtype=float32", "train.adapter.rank=2", "train.vision.hidden=32", "train.vision.layers=1",
    "train.vision.heads=2", "train.vision.intermediate=32", "train.vision.image_size=32", "train.vision.patch_size=16",
    "train.ppo.batch=4", "train.ppo.minibatch=2", "train.ppo.micro_batch=1", "train.ppo.max_new_tokens=4",
    "machine.threads=1",
)  # fmt: skip
POLL_S = 0.05
# Tower, alignment and warm-up: each counts one step, its end.
PHASES_BEFORE = 3
# Of a text prompt beside the image's tokens (benchmarks/random_phi3.py), tokens and template.
WORDS = 64


def config_of(profile: str, options: argparse.Namespace) -> Config:
    """The real config's profile, cut down to PPO."""
    overrides = [f"profile={profile}", *COMMON, f"train.ppo.updates={options.updates}"]
    overrides += [f"machine.device={options.device}", f"machine.checkpoint_interval_s={options.interval}"]
    return load_config(CONFIG, [*overrides, *(TINY if options.tiny else ())])


def train(world: Path, home: Path, config: Config) -> dict[str, Any]:
    """In this process: the train step, and what it took."""
    from so8t.train.run import run

    out = home / f"{'b' * 64}.partial"
    out.mkdir(parents=True, exist_ok=True)
    inputs = {"base": given(world / "base", "collect.base"), "data": given(world / "data", "preprocess")}
    clock = Clock()
    facts = run(config.train, inputs, out, Progress("train", config.machine, home))
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "seconds": facts["seconds_this_attempt"],
        "resumes": len(facts["resumes"]),
        "checkpoints": facts["checkpoints"],
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        "reserved_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0,
        **clock.last_update(config, rows),
        "micro_batch": [row["micro_batch"] for row in rows if "micro_batch" in row],
        "files": {
            path.relative_to(out).as_posix(): hash_file(path) for path in sorted(out.rglob("*")) if path.is_file()
        },
    }


class Clock:
    """Notes when each step of PPO begins, and when the last has ended."""

    def __init__(self) -> None:
        from so8t.train.policy import Policy

        self.began: list[float] = []
        step, finish_phase = Policy.step, Policy.finish

        def timed_step(policy: Policy, position: int) -> Any:
            self.began.append(time.monotonic())
            return step(policy, position)

        def timed_finish(policy: Policy) -> Any:
            self.began.append(time.monotonic())
            return finish_phase(policy)

        Policy.step, Policy.finish = timed_step, timed_finish  # type: ignore[method-assign]

    def last_update(self, config: Config, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Of a training that was not resumed: the first update also compiles and reviews."""
        ppo = config.train.ppo
        steps = ppo.epochs * -(-ppo.batch // ppo.minibatch)
        if len(self.began) <= steps:
            return {}
        row = [row for row in rows if row["phase"] == "ppo"][-steps]
        seconds = self.began[-1] - self.began[-1 - steps]
        return {
            "update_s": seconds, "tokens": row["tokens"], "tokens_per_s": row["tokens"] / seconds,
            "reply_tokens_per_s": row["reply_tokens"] * ppo.batch / seconds,
        }  # fmt: skip


def given(path: Path, step: str) -> Artifact:
    """A folder as the store would give it, without hashing gigabytes."""
    manifest = Manifest(
        step=step, version=1, key="a" * 64, content="a" * 64, files=[], inputs={}, config={}, facts={}, code={},
        packages={}, machine={}, started_at="", finished_at="",
    )  # fmt: skip
    return Artifact(path, manifest)


def start(world: Path, home: Path, profile: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    """The same in a process of its own; its last line is JSON."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.phi35",
        "--case",
        profile,
        "--world",
        str(world),
        "--home",
        str(home),
    ]
    command += ["--device", options.device, "--updates", str(options.updates), "--interval", str(options.interval)]
    command += ["--tiny"] if options.tiny else []
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")  # noqa: S603


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What the case told; a failure of it is one of the whole."""
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a training ended with exit code {process.returncode}; see above")
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def measure(world: Path, place: Path, profile: str, options: argparse.Namespace) -> dict[str, Any]:
    """One profile: undisturbed, then killed and resumed."""
    whole = finish(start(world, place / "whole", profile, options))
    killed = start(world, place / "cut", profile, options)
    while killed.poll() is None and saved_step(place / "cut") <= PHASES_BEFORE:
        time.sleep(POLL_S)
    was_alive = killed.poll() is None
    killed.kill()
    killed.communicate()
    cut = finish(start(world, place / "cut", profile, options))
    for folder in ("whole", "cut"):
        shutil.rmtree(place / folder)
    return {
        **{name: told for name, told in whole.items() if name not in ("files", "resumes")},
        "planned_bytes": planned(world, config_of(profile, options)),
        "killed_in_time": was_alive and cut["resumes"] == 1,
        "exact": cut["files"] == whole["files"],
    }


def saved_step(home: Path) -> int:
    """Steps of all phases that the newest checkpoint holds; 0 before the first."""
    for path in home.glob("sessions/*/session.json"):
        return int(durable.read_json(path)["current_step"])
    return 0


def planned(world: Path, config: Config) -> int:
    """Peak on the device by `so8t plan`, without the driver's context, which the allocator does not count."""
    geometry = of_json(durable.read_json(world / "base" / "config.json"), "here")
    tower = tower_of(config.train.vision, geometry)
    shapes = Shapes.of(config.train, geometry, tower, torch.cuda.is_available(), tower.tokens + WORDS)
    needs: tuple[Need, ...] = (rollout_need(shapes), update_need(shapes, config.train.ppo.micro_batch or 1))
    return max(need.device_bytes - need.device.get("CUDA context", 0) for need in needs)


def trl(world: Path, options: argparse.Namespace) -> dict[str, Any]:
    """TRL's updates on the same card, or why there are none."""
    try:
        found = version("trl")
    except PackageNotFoundError:
        return {"skipped": "TRL is not installed"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.trl_side",
        "--base",
        str(world / "base"),
        "--device",
        options.device,
    ]
    command += ["--batch", "2", "--reply", "4"] if options.tiny else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)  # noqa: S603
    if done.returncode:
        return {"version": found, "skipped": f"it ended with exit code {done.returncode}; see above"}
    return {"version": found, **json.loads(done.stdout.splitlines()[-1])}


def show(told: dict[str, Any]) -> None:
    """One line a profile."""
    sys.stdout.write(f"{told['device']}, {told['layers']} layers\n")
    for profile, case in told["profiles"].items():
        stall, checkpoints = case["checkpoints"]["stall_median_s"] or 0.0, case["checkpoints"]
        sys.stdout.write(
            f"  {profile:<5} peak {case['peak_bytes'] / GIB:5.2f} GiB (plan {case['planned_bytes'] / GIB:5.2f}), "
            f"{case['tokens_per_s']:7.1f} tokens/s of an update ({case['reply_tokens_per_s']:.1f} of replies), "
            f"stall {1e3 * stall:.1f} ms median, {1e3 * checkpoints['stall_max_s']:.1f} at most of "
            f"{checkpoints['size_bytes'] / 2**20:.0f} MiB; killed and resumed: {'the same bytes' if case['exact'] else 'OTHER BYTES'}\n"
        )
    sys.stdout.write(f"  TRL: {json.dumps(told['trl'])}\n{told['seconds']:.0f} s in all\n")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="+", default=["12gb", "24gb"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a small model in fp32: whether this program works")
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two checkpoints")
    parser.add_argument("--place", type=Path, help="folder for 8 GB of weights and the checkpoints")
    parser.add_argument("--json", type=Path, help="write everything here too")
    for hidden in ("--case", "--world", "--home"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Make the world, run each profile, compare."""
    options = parsed()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device was found; --tiny --device cpu shows whether this program works\n")
        return 2
    if options.case:
        told = train(Path(options.world), Path(options.home), config_of(options.case, options))
        sys.stdout.write(json.dumps(told) + "\n")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        world = Path(folder) / "world"
        layers, shape = (TINY_LAYERS, TINY_SHAPE) if options.tiny else (LAYERS, {})
        make_base(world / "base", layers, shape, options.device)
        make_rows(world / "data", config_of(options.profiles[0], options).train.vision.image_size, ROWS)
        profiles = {name: measure(world, Path(folder), name, options) for name in options.profiles}
        peer = trl(world, options)
    told = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu", "layers": layers,
        "profiles": profiles, "trl": peer, "seconds": time.monotonic() - began,
    }  # fmt: skip
    show(told)
    if options.json:
        durable.write_json(options.json, told)
    return 0 if all(case["exact"] and case["killed_in_time"] for case in profiles.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
