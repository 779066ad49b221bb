"""bake: measure everything that was baked against the live adapter model, and refuse it where it falls short."""

import gc
import time
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from so8t import durable, models
from so8t.artifacts import Artifact, hash_file
from so8t.bake import checks
from so8t.bake.chats import plain_chats
from so8t.bake.config import Bake, Speed
from so8t.bake.f32 import measure_f32
from so8t.bake.files_table import file_row, write_model_files
from so8t.bake.gate import Gate, write_gates
from so8t.bake.live import live_system, load_text
from so8t.bake.material import Material, material_of, provenance
from so8t.bake.measured import Measured
from so8t.bake.parity import Floats, Parity
from so8t.bake.quantize import model_gguf
from so8t.bake.reference import (
    Chats,
    Live,
    Report,
    ask_folded,
    ask_live,
    load_folded,
    read_chats,
    unheard,
)
from so8t.bake.speed import measure_speed
from so8t.bake.texts import parity_texts
from so8t.errors import DamagedArtifact
from so8t.progress import Progress
from so8t.so8.vit import Vision

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs

STAGES = 6
MODEL_SUFFIXES = (".safetensors", ".gguf")
NF4: models.Dtype = "nf4"


def run(config: Bake, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Write gates.json, gates.md, files.json and measured.json; GateFailed names every missed gate, its number and its limit."""
    started = time.monotonic()
    if progress.machine.threads:
        torch.set_num_threads(progress.machine.threads)
    bench = Bench(config, inputs, out, progress)
    gates = bench.measure()
    write_gates(out, gates)
    files = bench.file_rows(config.speed)
    write_model_files(out, files)
    progress.update(STAGES, STAGES, f"{len(gates)} gates passed")
    return {
        "gates": {gate.name: {"value": gate.value, "sense": gate.sense, "limit": gate.limit} for gate in gates},
        "files": files,
        "parity": {name: parity.facts() for name, parity in bench.measured.parities.items()},
        "trained_on": bench.trained_on,
        "seconds": round(time.monotonic() - started, 3),
    }


class Bench:
    """The baked files beside what they are measured against; each model is loaded when a measurement needs it."""

    def __init__(self, config: Bake, inputs: "Inputs", out: Path, progress: Progress) -> None:
        self.limits, self.out, self.inputs, self.progress = config.gates, out, inputs, progress
        quantized = {
            role.removeprefix("quantized."): artifact
            for role, artifact in inputs.items()
            if role.startswith("quantized.")
        }
        self.hf = inputs["fold"].path / "hf"
        f16 = model_gguf(inputs["fold"].path / "gguf")
        self.name = f16.name.removesuffix("-F16.gguf")
        self.mmproj = f16.with_name(f"{self.name}-mmproj-F16.gguf")
        self.files = {"F16": f16} | {
            kind: artifact.path / f"{self.name}-{kind}.gguf" for kind, artifact in quantized.items()
        }
        rows = list_files({"fold": inputs["fold"], **quantized}, self._within(0, "hashing the model files"))
        durable.write_json(out / "files.json", rows)
        self.sha256 = {Path(row["path"]).name: str(row["sha256"]) for row in rows}
        self.measured = Measured(out)
        self.material: Material = material_of(inputs)
        self.tokenizer = models.load_tokenizer(self.hf)
        self.chats: Chats = self._chats()
        self.trained_on = str(inputs["train"].manifest.config.get("adapter", {}).get("base_dtype", ""))

    def _chats(self) -> Chats:
        if "data" in self.inputs:
            return read_chats(self.inputs["data"].path, self.tokenizer, self.limits)
        tower = Vision.read(self.material.vision / "config.json") if self.material.vision else None
        return plain_chats(self.tokenizer, self.limits, tower)

    @cached_property
    def live(self) -> Live:
        """What the live adapter model says. The models are never in memory together."""
        report = self._within(1, "live adapter model")
        if self.material.vision is None:
            return Live(self._ask(load_text(self.material), report), [], None)
        stop = models.stop_ids(self.material.base)
        with live_system(self.material) as system:
            return ask_live(system, self.chats, stop, self.limits.answer_tokens_max, report)

    @cached_property
    def plain(self) -> list[Floats]:
        """What the weights folded from float64 say in transformers."""
        model = load_folded(self.material.base, self.material.text, self._within(2, "folding for transformers", 0.5))
        return self._ask(model, self._within(2.5, "folded model", 0.5))

    def _within(self, stage: float, doing: str, share: float = 1.0) -> Report:
        """Reports of what lies between a stage and the next, or in a share of it; the first of it now."""
        self._tell(stage, doing, share, 0, 1)
        return partial(self._tell, stage, doing, share)

    def _tell(self, stage: float, doing: str, share: float, done: int, total: int) -> None:
        self.progress.update(stage + share * done / total, STAGES, doing)

    def _ask(self, model: Any, report: Report) -> list[Floats]:
        logits = ask_folded(model, self.chats, report)
        del model
        gc.collect()
        return logits

    def measure(self) -> list[Gate]:
        """Every gate, in the order of the table."""
        gates = [self.folding_gate(), self.conversion_gate()]
        # The logits of a real vocabulary take gigabytes.
        self.__dict__.pop("plain", None)
        if self.trained_on == NF4:
            gates.append(self.training_gate())
        for kind, path in self.files.items():
            self.measured.parity(kind, self.sha256[path.name], lambda kind=kind, path=path: self._file(kind, path))  # type: ignore[misc]
        gates += self._loss_gates()
        self.progress.update(5, STAGES, "tokenizer, metadata, images")
        texts = parity_texts(self.tokenizer, self.chats.prompts, self.limits.tokenizer_texts)
        gates += [
            replace(gate, limit=self.limits.texts_differ_max)
            for gate in checks.tokenizer_gates(self.files["F16"], self.tokenizer, texts)
        ]
        gates += checks.template_gates(self.files["F16"], self.tokenizer, self.chats.prompts)
        for kind, path in self.files.items():
            gates += checks.metadata_gates(path, self.tokenizer, self.hf, self.name)
            gates += [*checks.type_gates(path, kind, self.limits.fallbacks_max), checks.finite_gate(path)]
        if self.material.vision:
            gates.append(checks.finite_gate(self.mmproj))
            both = self.sha256[self.files["F16"].name] + self.sha256[self.mmproj.name]
            gates += self.measured.gates("images", both, self._images)
        return gates

    def file_rows(self, speed: Speed) -> list[dict[str, Any]]:
        """What each file costs and loses."""
        rows: list[dict[str, Any]] = []
        machine = self.progress.machine
        for kind, path in self.files.items():
            self.progress.update(STAGES - 1 + len(rows) / len(self.files), STAGES, f"memory and speed of {kind}")
            found = measure_speed(path, speed, machine.threads, machine.device) if speed.repeats else {}
            made = {} if kind == "F16" else self.inputs[f"quantized.{kind}"].manifest.facts
            rows.append(file_row(path, self.measured.parities[kind], made, found))
        return rows

    def folding_gate(self) -> Gate:
        """The live adapter against what was folded in float64."""
        fold = self.measured.parity("fold", "", lambda: compared(self.live.logits, self.plain, self.chats.ids))
        return Gate("live against folded, relative logit error", fold.relative_error, self.limits.fold_error_max)

    def conversion_gate(self) -> Gate:
        """What was folded in float64 against its F32 GGUF."""
        f32 = self.measured.parity("F32", "", self._f32)
        return Gate(
            "transformers against F32 GGUF, max logit difference", f32.difference_max, self.limits.f32_logit_max
        )

    def training_gate(self) -> Gate:
        """The live adapter on the base that training saw against the live adapter on the base that is baked."""
        trained = self.measured.parity(NF4, "", self._trained)
        name = "4-bit base of the training against what is baked, mean KL"
        return Gate(name, trained.kl, self.limits.trained_kl_max)

    def _loss_gates(self) -> list[Gate]:
        f16 = self.measured.parities["F16"]
        gates = [
            Gate("F16 top-1", f16.top1, self.limits.f16_top1_min, ">="),
            Gate("F16 mean KL", f16.kl, self.limits.f16_kl_max),
            Gate("F16 logits not finite", f16.not_finite, 0),
        ]
        for kind in self.files:
            if kind != "F16":
                gates += checks.loss_gates(kind, self.measured.parities[kind], self.limits.quantized.of(kind))
        return gates

    def _f32(self) -> Parity:
        plain, notes = self.plain, provenance(self.inputs, self.material)
        path = self.out / f"{self.name}-F32.gguf{durable.TMP_SUFFIX}"
        return measure_f32(
            path, self.material, self.name, notes, self.chats.ids, plain, self.progress.machine.threads,
            self._within(3, "writing an F32 GGUF", 0.5), partial(self._tell, 3.5, "F32 GGUF", 0.5),
        )  # fmt: skip

    def _file(self, kind: str, path: Path) -> Parity:
        live, number = self.live.logits, list(self.files).index(kind)
        report = self._within(4 + number / len(self.files), f"{kind} GGUF", 1 / len(self.files))
        return checks.measure(path, self.chats.ids, live, self.progress.machine.threads, report)

    def _trained(self) -> Parity:
        live, report = self.live.logits, self._within(3, "live adapter on the 4-bit base")
        return compared(self._ask(load_text(self.material, NF4), report), live, self.chats.ids)

    def _images(self) -> list[Gate]:
        return checks.image_gates(
            self.files["F16"], self.mmproj, self.live, self.chats, self.tokenizer, self.limits, self.progress.machine.threads
        )  # fmt: skip


def compared(reference: list[Floats], found: list[Floats], ids: list[list[int]]) -> Parity:
    """The parity of two models' logits on the same texts."""
    parity = Parity()
    for tokens, wanted, have in zip(ids, reference, found, strict=True):
        parity.add(wanted, have, tokens)
    return parity


def list_files(artifacts: dict[str, Artifact], report: Report = unheard) -> list[dict[str, Any]]:
    """Every model file with its size and its hash, computed anew; DamagedArtifact where it is not the manifest's.

    `report` is told bytes.
    """
    rows, done_bytes = [], 0
    chosen = [
        (origin, artifact.path, entry)
        for origin, artifact in artifacts.items()
        for entry in artifact.manifest.files
        if entry.path.endswith(MODEL_SUFFIXES)
    ]
    total_bytes = sum(entry.size_bytes for _, _, entry in chosen)
    for origin, folder, entry in chosen:
        found = hash_file(folder / entry.path)
        if found != entry.sha256:
            raise DamagedArtifact(
                f"{folder / entry.path}: sha256 {found[:12]}.., the manifest says {entry.sha256[:12]}.."
            )
        rows.append({"from": origin, "path": entry.path, "size_bytes": entry.size_bytes, "sha256": found})
        done_bytes += entry.size_bytes
        report(done_bytes, total_bytes)
    return rows
