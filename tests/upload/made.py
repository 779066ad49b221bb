"""Small artifacts in the real formats, as the steps before upload leave them; and one publication, for subprocesses."""

import json
import os
import random
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import safetensors.numpy
from gguf import GGUFWriter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from so8t import durable, records
from so8t.artifacts import Artifact, Store, hash_json
from so8t.benchmark.config import Benchmark
from so8t.benchmark.contrasts import compute
from so8t.benchmark.summary import summarise
from so8t.benchmark.task import load_task
from so8t.config import Machine
from so8t.progress import Progress
from so8t.records import Record
from so8t.step import Facts
from so8t.upload.config import Upload
from so8t.upload.run import run

NAME = "so8t-phi-3"
REVISION = "0123456789abcdef0123456789abcdef01234567"
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>"]
MODEL_BYTES = 300_000


def artifact(
    store: Store,
    step: str,
    files: dict[str, bytes],
    *,
    config=None,
    inputs=None,
    facts=None,
    volatile=(),
    key="",
    finished_at="2025-01-01T00:00:01+00:00",
) -> Artifact:
    """Commit a finished artifact."""
    key = key or hash_json([step, config or {}, sorted(files)])
    with store.working(step, key) as out:
        for name, data in files.items():
            durable.write_bytes(out / name, data)
        return store.commit(
            out,
            {
                "step": step, "version": 1, "key": key, "config": config or {}, "facts": facts or {},
                "inputs": {
                    role: {"step": a.manifest.step, "key": a.manifest.key, "content": a.content}
                    for role, a in (inputs or {}).items()
                },
                "code": {"commit": None}, "packages": {}, "machine": {},
                "started_at": finished_at, "finished_at": finished_at,
            },
            frozenset(volatile),
        )  # fmt: skip


def as_json(value: object) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2) + "\n").encode()


def some_bytes(seed: int, size: int = MODEL_BYTES) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


def tensor_bytes(seed: int, size: int = MODEL_BYTES, metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file."""
    return safetensors.numpy.save(
        {"weight": np.frombuffer(some_bytes(seed, size), np.uint8)}, metadata or {"format": "pt"}
    )


def gguf_bytes(texts: dict[str, str], tokens: Sequence[str] = (), seed: int = 0, size: int = 400) -> bytes:
    """A GGUF file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        writer = GGUFWriter(path, "phi3")
        for key, text in texts.items():
            writer.add_string(key, text)
        if tokens:
            writer.add_token_list(list(tokens))
        writer.add_tensor("weight", np.frombuffer(some_bytes(seed, size), np.int8))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def png_bytes(texts: dict[str, str] | None = None) -> bytes:
    """A picture."""
    info, file = PngInfo(), BytesIO()
    for key, text in (texts or {"Software": "matplotlib"}).items():
        info.add_text(key, text)
    Image.frombytes("RGB", (8, 8), some_bytes(10, 192)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def hf_files() -> dict[str, bytes]:
    tokens = [{"id": 100 + i, "content": text, "special": True} for i, text in enumerate(SPECIAL)]
    shape = {"max_position_embeddings": 4096, "original_max_position_embeddings": 512}
    return {
        "hf/config.json": as_json({"architectures": ["Phi3ForCausalLM"], **shape}),
        "hf/generation_config.json": as_json({"eos_token_id": [100, 102]}),
        "hf/tokenizer.json": as_json({"added_tokens": tokens, "model": {"vocab": {"a@b.com": 1}}}),
        "hf/tokenizer_config.json": as_json({"add_bos_token": False}),
        "hf/chat_template.jinja": TEMPLATE.encode(),
        "hf/model-00001-of-00001.safetensors": tensor_bytes(1),
        "hf/model.safetensors.index.json": as_json({"weight_map": {}}),
    }


def results() -> dict[str, object]:
    """results.json as the benchmark computes it, from made-up answers."""
    rng = random.Random(0)  # noqa: S311
    config = Benchmark(tasks=("safety",), resamples=200)
    tasks = {"safety": load_task("safety")}
    names = [choice.name for choice in tasks["safety"].choices]

    def answer(item: int, skill: float) -> dict[str, object]:
        truth = names[item % 4]
        predicted = truth if rng.random() < skill else rng.choice(names)
        logprobs = {name: -0.1 if name == predicted else -3.0 for name in names}
        return {
            "id": f"i{item:03d}", "ids_sha256": "0" * 64, "status": "ok", "truth": truth, "predicted": predicted,
            "logprobs": logprobs, "language": "ja" if item % 2 else "en", "category": "everyday",
        }  # fmt: skip

    skills = {"A": 0.1, "B": 0.8, "C-F16": 0.8, "C-Q8_0": 0.8, "A-Q8_0": 0.1}
    answers = {"safety": {system: [answer(i, skill) for i in range(40)] for system, skill in skills.items()}}
    summary = {system: summarise(config, tasks["safety"], lines) for system, lines in answers["safety"].items()}
    own = {"origin": "the pipeline's own test split", "revision": "0" * 64}
    return {
        "tasks": {"safety": summary}, "contrasts": compute(config, tasks, answers), "complete": True, "questions": {"safety": own},
    }  # fmt: skip


def row(index: int, licence: str = "mit") -> Record:
    return Record(
        f"r{index}", "text", "ja" if index % 2 else "en", "prompt", source="lab/set", revision=REVISION, licence=licence
    )


def data_files(home: Path, licence: str) -> dict[str, bytes]:
    files = {"data_card.md": b"# Data card\n", "data_card.json": as_json({"rows": 8})}
    for number, split in enumerate(("train", "validation", "test", "nsfw")):
        records.write(home / "scratch.parquet", [row(2 * number), row(2 * number + 1, licence)])
        files[f"{split}.parquet"] = (home / "scratch.parquet").read_bytes()
    (home / "scratch.parquet").unlink()
    return files


def make_inputs(
    home: Path, *, licence: str = "mit", report: bytes = b"# Report\n", card: bytes = b""
) -> dict[str, Artifact]:
    """All artifacts that upload reads, in the store under `home`."""
    store = Store(home)
    home.mkdir(parents=True, exist_ok=True)
    base = artifact(
        store, "collect.base", {"LICENSE": b"MIT License\n", "README.md": b"---\nlicense: mit\n---\n"},
        config={"kind": "demo", "seed": 0}, facts={"licence": "mit"},
    )  # fmt: skip
    source = artifact(store, "collect.source", {"sources.json": as_json({"name": "set"})}, config={"name": "set"})
    evidence = {"attribution": "A. Uthor: The Set, 2020"}
    sources = {
        "sources": [{"name": "set", "evidence": evidence, "allowed": ["mit", "apache-2.0"], "passed": 8}],
        "refused": {},
    }
    collected = artifact(store, "collect", {"sources.json": as_json(sources)}, inputs={"source.set": source})
    files = data_files(home, licence)
    data = artifact(
        store, "preprocess", {**files, **({"data_card.md": card} if card else {})}, inputs={"collected": collected}
    )
    train = artifact(
        store, "train",
        {
            "adapter/adapter.safetensors": tensor_bytes(2, 5_000), "adapter/adapter.json": as_json({"format": "so8t-adapter-1"}),
            "tokenizer/tokenizer.json": b"{}\n", "vision/model.safetensors": tensor_bytes(3, 5_000),
            "vision/adapter.safetensors": tensor_bytes(4, 500), "vision/config.json": b"{}\n",
            "head/head.safetensors": tensor_bytes(5, 500), "head/head.json": b"{}\n",
            "metrics.json": b"{}\n", "history.jsonl": b'{"step": 1, "loss": 0.5}\n', "progress.jsonl": b"{}\n",
        },
        inputs={"data": data, "base": base}, volatile={"progress.jsonl"},
    )  # fmt: skip
    fold = artifact(
        store, "bake.fold",
        {
            **hf_files(), "vision/model.safetensors": tensor_bytes(6, 5_000), "vision/config.json": as_json({"image_size": 32}),
            f"gguf/{NAME}-F16.gguf": gguf_bytes({}, seed=7, size=MODEL_BYTES), f"gguf/{NAME}-mmproj-F16.gguf": gguf_bytes({}, seed=8, size=9_000),
        },
        config={"name": NAME}, inputs={"base": base, "train": train},
    )  # fmt: skip
    quantized = artifact(
        store, "bake.quantize", {f"{NAME}-Q8_0.gguf": gguf_bytes({}, seed=9, size=MODEL_BYTES // 2)},
        config={"type": "Q8_0"}, inputs={"fold": fold},
    )  # fmt: skip
    gates = [{"name": "parity", "value": 1e-6, "limit": 1e-5, "sense": "<=", "passed": True, "detail": ""}]
    measured = {
        "file": f"{NAME}-Q8_0.gguf", "kl": 0.00123, "top1": 0.995, "perplexity_ratio": 1.001, "memory_peak_bytes": 45_000_000,
        "prompt_tokens_per_s": 123.4, "new_tokens_per_s": 56.7, "on": "CPU",
    }  # fmt: skip
    bake = artifact(
        store, "bake", {"gates.json": as_json(gates), "gates.md": b"# Gates\n", "files.json": b"[]\n"},
        facts={"files": [measured]},
        inputs={"base": base, "train": train, "data": data, "fold": fold, "quantized.Q8_0": quantized},
    )  # fmt: skip
    benchmark = artifact(
        store, "benchmark",
        {"results.json": as_json(results()), "report.md": report, "forest.png": png_bytes(), "speed.json": b"{}\n"},
        inputs={"train": train, "bake": bake}, volatile={"speed.json"},
    )  # fmt: skip
    return {
        "base": base, "collected": collected, "data": data, "train": train, "fold": fold, "bake": bake,
        "benchmark": benchmark, "quantized.Q8_0": quantized,
    }  # fmt: skip


def publish(home: Path, inputs: dict[str, Artifact], config: Upload, sinks=()) -> tuple[Artifact, Facts]:
    """Run the step as `so8t.step.execute` does, and commit it."""
    store = Store(home)
    key = hash_json(config.model_dump(mode="json"))
    with store.working("upload", key) as out:
        facts = run(config, inputs, out, Progress("upload", Machine(), home, tuple(sinks)))
        manifest = {
            "step": "upload", "version": 1, "key": key, "config": config.model_dump(mode="json"), "facts": facts,
            "inputs": {
                role: {"step": a.manifest.step, "key": a.manifest.key, "content": a.content} for role, a in inputs.items()
            },
            "code": {}, "packages": {}, "machine": {},
            "started_at": "2025-01-01T00:00:00+00:00", "finished_at": "2025-01-01T00:00:01+00:00",
        }  # fmt: skip
        return store.commit(out, manifest, frozenset({"receipt.json"})), facts


def load_inputs(home: Path) -> dict[str, Artifact]:
    """The inputs that `make_inputs` left under `home`."""
    found = {a.manifest.step: a for a in Store(home).all()}
    roles = {
        "base": "collect.base", "collected": "collect", "data": "preprocess", "train": "train", "fold": "bake.fold",
        "bake": "bake", "benchmark": "benchmark", "quantized.Q8_0": "bake.quantize",
    }  # fmt: skip
    return {role: found[step] for role, step in roles.items()}


def main() -> None:
    """`python -m tests.upload.made HOME CONFIG_JSON`: publish the inputs that lie there."""
    home = Path(sys.argv[1])
    _, facts = publish(home, load_inputs(home), Upload.model_validate_json(sys.argv[2]))
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    main()
