"""bake: measure everything that was baked against the live adapter model, and refuse it where it falls short."""

import gc
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from so8t import durable, models
from so8t.artifacts import Artifact, hash_file
from so8t.bake import checks
from so8t.bake.config import Bake
from so8t.bake.fold import provenance
from so8t.bake.gate import Gate, write_gates
from so8t.bake.gguf_model import write_model
from so8t.bake.parity import Parity
from so8t.bake.quantize import model_gguf
from so8t.bake.reference import Chats, Live, ask_folded, ask_live, load_folded, load_live, read_chats
from so8t.errors import DamagedArtifact, ResourceError
from so8t.progress import Progress
from so8t.so8.merge import Folded, Tensors, read_train_adapter

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs

STAGES = 6
MODEL_SUFFIXES = (".safetensors", ".gguf")


def run(config: Bake, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Write gates.json, gates.md and files.json; GateFailed names every missed gate, its number and its limit."""
    started = time.monotonic()
    if progress.machine.threads:
        torch.set_num_threads(progress.machine.threads)
    quantized = {
        role.removeprefix("quantized."): artifact for role, artifact in inputs.items() if role.startswith("quantized.")
    }
    progress.update(0, STAGES, "hashing the model files")
    durable.write_json(out / "files.json", list_files({"fold": inputs["fold"], **quantized}))
    gates, measured = _measure(config, inputs, quantized, out, progress)
    write_gates(out, gates)
    progress.update(STAGES, STAGES, f"{len(gates)} gates passed")
    return {
        "gates": {gate.name: gate.value for gate in gates},
        "parity": {name: parity.facts() for name, parity in measured.items()},
        "seconds": round(time.monotonic() - started, 3),
    }


def _measure(
    config: Bake, inputs: "Inputs", quantized: dict[str, Artifact], out: Path, progress: Progress
) -> tuple[list[Gate], dict[str, Parity]]:
    gates, threads = config.gates, progress.machine.threads
    base, fold = inputs["base"].path, inputs["fold"].path
    f16 = model_gguf(fold / "gguf")
    name = f16.name.removesuffix("-F16.gguf")
    tokenizer = models.load_tokenizer(fold / "hf")
    chats = read_chats(inputs["data"].path, tokenizer, gates)

    progress.update(1, STAGES, "live adapter model")
    live = _live(inputs, chats, gates.answer_tokens_max)
    progress.update(2, STAGES, "folded model")
    folded = Folded(Tensors.of_model(base), read_train_adapter(inputs["train"].path))
    model = load_folded(base, folded)
    plain = ask_folded(model, chats)
    del model
    gc.collect()
    fold_parity = Parity()
    for ids, reference, found in zip(chats.ids, live.logits, plain, strict=True):
        fold_parity.add(reference, found, ids)

    progress.update(3, STAGES, "F32 GGUF")
    notes = provenance(inputs)
    measured = {"fold": fold_parity}
    measured["F32"] = _measure_f32(out, base, folded, fold / "hf", name, notes, chats, plain, threads)
    del plain
    files = {"F16": f16, **{kind: artifact.path / f"{name}-{kind}.gguf" for kind, artifact in quantized.items()}}
    for kind, path in files.items():
        progress.update(4, STAGES, f"{kind} GGUF")
        measured[kind] = checks.measure(path, chats.ids, live.logits, threads)

    progress.update(5, STAGES, "tokenizer, metadata, images")
    texts = checks.tokenizer_texts(tokenizer, chats.prompts)
    mmproj = fold / "gguf" / f"{name}-mmproj-F16.gguf"
    found_gates = [
        Gate("live against folded, relative logit error", fold_parity.relative_error, gates.fold_error_max),
        Gate(
            "transformers against F32 GGUF, max logit difference", measured["F32"].difference_max, gates.f32_logit_max
        ),
        Gate("F16 top-1", measured["F16"].top1, gates.f16_top1_min, ">="),
        Gate("F16 mean KL", measured["F16"].kl, gates.f16_kl_max),
        Gate("F16 logits not finite", measured["F16"].not_finite, 0),
        *(gate for kind in quantized for gate in checks.loss_gates(kind, measured[kind], gates.quantized.of(kind))),
        *checks.tokenizer_gates(f16, tokenizer, texts),
        *(gate for kind, path in files.items() for gate in _file_gates(path, kind, tokenizer, fold / "hf", name)),
        checks.finite_gate(mmproj),
        *checks.image_gates(f16, mmproj, live, chats, tokenizer, gates, threads),
    ]
    return found_gates, measured


def _file_gates(path: Path, kind: str, tokenizer: Any, hf: Path, name: str) -> list[Gate]:
    return [*checks.metadata_gates(path, tokenizer, hf, name), *checks.type_gates(path, kind), checks.finite_gate(path)]


def _live(inputs: "Inputs", chats: Chats, answer_tokens_max: int) -> Live:
    """Ask the live model and let it go: the folded one needs the memory."""
    system = load_live(inputs["base"].path, inputs["train"].path)
    live = ask_live(system, chats, models.stop_ids(inputs["base"].path), answer_tokens_max)
    del system
    gc.collect()
    return live


def _measure_f32(
    out: Path,
    base: Path,
    folded: Folded,
    tokenizer: Path,
    name: str,
    notes: dict[str, str],
    chats: Chats,
    plain: list[Any],
    threads: int,
) -> Parity:
    """Parity of an F32 GGUF that exists only for this measurement."""
    needed = 4 * sum(int(torch.Size(folded.base.info(tensor).shape).numel()) for tensor in folded.base.names())
    free = shutil.disk_usage(out).free
    if free < needed:
        raise ResourceError(f"{free / 1e9:.1f} GB are free at {out}", f"{needed / 1e9:.1f} GB for a passing F32 copy")
    path = out / f"{name}-F32.gguf{durable.TMP_SUFFIX}"
    try:
        write_model(path, base, folded, tokenizer, name, "F32", notes, lambda done, total: None)
        return checks.measure(path, chats.ids, plain, threads)
    finally:
        path.unlink(missing_ok=True)


def list_files(artifacts: dict[str, Artifact]) -> list[dict[str, Any]]:
    """Every model file with its size and its hash, computed anew; DamagedArtifact where it is not the manifest's."""
    rows = []
    for origin, artifact in artifacts.items():
        for entry in artifact.manifest.files:
            if not entry.path.endswith(MODEL_SUFFIXES):
                continue
            found = hash_file(artifact.path / entry.path)
            if found != entry.sha256:
                raise DamagedArtifact(
                    f"{artifact.path / entry.path}: sha256 {found[:12]}.., the manifest says {entry.sha256[:12]}.."
                )
            rows.append({"from": origin, "path": entry.path, "size_bytes": entry.size_bytes, "sha256": found})
    return rows
