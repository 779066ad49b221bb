import os
import shutil
import signal
import subprocess

import pytest
from pydantic import ValidationError

from so8t import durable, pulse
from so8t.bake import checks, quantize, run, speed
from so8t.bake.config import Bake, Fold, Gates, Loss, Quantize, Quantized, Speed
from so8t.bake.gate import Gate, write_gates
from so8t.config import Machine
from so8t.errors import DamagedArtifact, GateFailed, Interrupted, StepFailed
from so8t.progress import Progress
from tests.bake.conftest import artifact

# Random weights give nearly flat logits, whose order any rounding changes: top-1 means nothing here.
LOOSE = Gates(
    fold_error_max=1.0e-5,
    f32_logit_max=1.0e-4,
    f16_kl_max=1.0e-5,
    f16_top1_min=0.95,
    quantized=Quantized(Q4_K_M=Loss(kl_max=0.15, top1_min=0.0, perplexity_ratio_max=1.2)),
)


@pytest.fixture(scope="module")
def inputs(world, folded, progress, tmp_path_factory):
    out = tmp_path_factory.mktemp("q4")
    facts = quantize.run(Quantize(type="Q4_K_M"), {"fold": folded}, out, progress)
    made = {"base": world.base, "train": world.train, "data": world.data, "fold": folded}
    return {**made, "quantized.Q4_K_M": artifact(out, "bake.quantize", **facts)}


@pytest.fixture(scope="module")
def passed(inputs, progress, tmp_path_factory):
    """A run without a fault: where it wrote, and its facts."""
    out = tmp_path_factory.mktemp("passed")
    return out, run.run(Bake(gates=LOOSE), inputs, out, progress)


def test_all_gates_pass_and_are_written(passed):
    out, facts = passed
    assert sorted(path.name for path in out.iterdir()) == [
        "files.json", "gates.json", "gates.md", "measured.json", "model_files.md",
    ]  # fmt: skip
    gates = {gate["name"]: gate for gate in durable.read_json(out / "gates.json")}
    assert all(gate["passed"] for gate in gates.values())
    assert facts["gates"] == {
        name: {key: gate[key] for key in ("value", "sense", "limit")} for name, gate in gates.items()
    }
    for row in facts["files"]:
        assert row["prompt_tokens_per_s"] > 0
        assert row["new_tokens_per_s"] > 0
        # Python, numpy and llama.cpp alone take more; nothing here should take torch's hundreds of megabytes.
        assert row["size_bytes"] < row["memory_peak_bytes"] < 250e6
    f16, q4 = facts["files"]
    assert (f16["bits_per_weight"], f16["fallbacks"], q4["fallbacks"]) == (16.0, 0, 0)
    assert q4["kl"] == facts["parity"]["Q4_K_M"]["kl"]
    shown = (out / "model_files.md").read_text(encoding="utf-8")
    assert "| so8t-phi-3-Q4_K_M.gguf | " in shown
    assert "tokens/s written" in shown
    parity = facts["parity"]
    assert 0 < parity["fold"]["relative_error"] <= 1e-5
    assert 0 < parity["F32"]["difference_max"] <= 1e-4
    assert parity["F16"]["kl"] < parity["Q4_K_M"]["kl"]
    listed = {row["path"]: row for row in durable.read_json(out / "files.json")}
    assert {
        "gguf/so8t-phi-3-F16.gguf",
        "gguf/so8t-phi-3-mmproj-F16.gguf",
        "so8t-phi-3-Q4_K_M.gguf",
        "vision/model.safetensors",
    } <= set(listed)
    assert all(len(row["sha256"]) == 64 for row in listed.values())


def test_missed_gate_is_named_with_number_and_limit(inputs, passed, progress, tmp_path):
    shutil.copy(passed[0] / "measured.json", tmp_path)  # the numbers are the same, the ceiling is not
    strict = LOOSE.model_copy(update={"f32_logit_max": 1.0e-12})
    with pytest.raises(GateFailed, match=r"max logit difference: [\d.e-]+, wanted <= 1e-12, missed by [\d.e-]+"):
        run.run(Bake(gates=strict), inputs, tmp_path, progress)
    missed = [gate["name"] for gate in durable.read_json(tmp_path / "gates.json") if not gate["passed"]]
    assert missed == ["transformers against F32 GGUF, max logit difference"]
    assert "MISSED" in (tmp_path / "gates.md").read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.tmp"))


def test_adapter_folded_with_the_wrong_sign_misses_the_gates(inputs, progress, tmp_path):
    """The live model turns one way, the files were folded the other way."""
    train = tmp_path / "train"
    shutil.copytree(inputs["train"].path, train)
    header = durable.read_json(train / "adapter" / "adapter.json")
    durable.write_json(train / "adapter" / "adapter.json", {**header, "alpha": -header["alpha"]})
    (tmp_path / "out").mkdir()
    with pytest.raises(GateFailed, match="F16 mean KL"):
        run.run(Bake(gates=LOOSE), {**inputs, "train": artifact(train, "train")}, tmp_path / "out", progress)


def test_damaged_model_file_is_found(inputs, progress, tmp_path):
    broken = tmp_path / "q4"
    shutil.copytree(inputs["quantized.Q4_K_M"].path, broken)
    path = broken / "so8t-phi-3-Q4_K_M.gguf"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    damaged = type(inputs["fold"])(broken, inputs["quantized.Q4_K_M"].manifest)
    with pytest.raises(DamagedArtifact, match="the manifest says"):
        run.run(Bake(gates=LOOSE), {**inputs, "quantized.Q4_K_M": damaged}, tmp_path, progress)


def test_nan_never_passes(tmp_path):
    gate = Gate("x", float("nan"), 1.0)
    assert not gate.passed
    assert not Gate("x", float("inf"), 1.0, ">=").passed
    with pytest.raises(GateFailed, match="1 of 2 gates missed"):
        write_gates(tmp_path, [gate, Gate("y", 1.0, 1.0)])
    assert durable.read_json(tmp_path / "gates.json")[0]["value"] == "nan"


def test_name_must_hold_phi_3():
    assert Fold(name="My-Phi3-toy").name == "My-Phi3-toy"
    assert Fold(name="Phi-4-mini").name == "Phi-4-mini"  # a base alone, whose special tokens strip nothing
    with pytest.raises(ValidationError, match="must contain phi-3"):
        Bake(fold=Fold(name="toy"))
    with pytest.raises(ValidationError, match="nothing to publish"):
        Bake(fold=Fold(stock=False))


def test_what_was_measured_before_a_kill_is_not_measured_again(inputs, passed, progress, tmp_path, monkeypatch):
    shutil.copy(passed[0] / "measured.json", tmp_path)
    bake = Bake(gates=LOOSE)

    def load(*given):
        raise AssertionError("measured again")

    for name in ("live_system", "load_folded", "measure_f32"):
        monkeypatch.setattr(run, name, load)
    assert run.run(bake, inputs, tmp_path, progress)["gates"] == passed[1]["gates"]
    # Another file under that name is another measurement.
    kept = durable.read_json(tmp_path / "measured.json")
    durable.write_json(tmp_path / "measured.json", {**kept, "F16": {**kept["F16"], "sha256": "0" * 64}})
    with pytest.raises(AssertionError, match="measured again"):
        run.run(bake, inputs, tmp_path, progress)


def test_training_on_a_4_bit_base_is_compared_with_what_is_baked(inputs, progress, tmp_path):
    train = inputs["train"]
    manifest = train.manifest.model_copy(update={"config": {"adapter": {"base_dtype": "nf4"}}})
    bench = run.Bench(Bake(gates=LOOSE), {**inputs, "train": type(train)(train.path, manifest)}, tmp_path, progress)
    assert bench.trained_on == "nf4"
    gate = bench.training_gate()
    # Rounding to 4 bits is far above that to fp32, and far below another adapter.
    assert 1e-5 < gate.value < 0.5
    assert "4-bit" in gate.name


def test_a_measurement_of_speed_that_does_not_end_is_said(folded, monkeypatch):
    monkeypatch.setattr(speed, "TIMEOUT_S", 0.001)
    with pytest.raises(StepFailed, match="repeats: 0 measures nothing"):
        speed.measure_speed(quantize.model_gguf(folded.path / "gguf"), Speed(), 1, "cpu")


def test_the_long_stages_tell_how_far_they_are(inputs, tmp_path, monkeypatch):
    """A stage of a large model may last longer than the monitor lets a process be silent."""

    class Told:
        def __init__(self):
            self.stages, self.lines, self.order = {}, 0, []

        def report(self, step, done, total, message, metrics):
            self.lines += 1
            self.order.append(done)
            self.stages.setdefault(message, []).append(done)

    told = Told()
    progress = Progress("bake", Machine(threads=1), tmp_path, (told,))
    bench = run.Bench(Bake(gates=LOOSE), inputs, tmp_path, progress)
    bench.folding_gate(), bench.conversion_gate()
    bench.measured.parity("F16", "", lambda: bench._file("F16", bench.files["F16"]))
    chats = len(bench.chats.ids)
    assert chats >= 3
    for name, at_least in {
        "hashing the model files": 3, "live adapter model": chats, "folding for transformers": 4,
        "folded model": chats, "writing an F32 GGUF": 10, "F32 GGUF": chats, "F16 GGUF": chats,
    }.items():  # fmt: skip
        done = told.stages[name]
        assert len(set(done)) >= at_least, name
        assert done == sorted(done)
    assert told.order == sorted(told.order), "no stage is told before it begins"

    # What has no number of its own repeats the last report, unless one was just made.
    monkeypatch.setattr("so8t.progress.PULSE_S", 3600.0)
    before = told.lines
    with pulse.heard(progress.beat):
        checks.finite_gate(bench.files["F16"])
        assert told.lines == before
        monkeypatch.setattr("so8t.progress.PULSE_S", 0.0)
        checks.finite_gate(bench.files["F16"])
    assert told.lines >= before + 10, "a line for each tensor"


def test_a_measurement_of_speed_gives_signs(folded, monkeypatch):
    beats = []
    monkeypatch.setattr(speed, "SIGN_S", 0.0)
    path = quantize.model_gguf(folded.path / "gguf")
    with pulse.heard(lambda: beats.append(1)):
        found = speed.measure_speed(path, Speed(prompt_tokens=8, new_tokens=8, repeats=1), 1, "cpu")
    assert found["new_tokens_per_s"] > 0
    assert len(beats) > 2 * (1 + 8), "one for each pass of each repeat"


def test_a_stop_ends_the_measurement_of_speed_at_once(folded, monkeypatch):
    """Whoever stops a bake waits for seconds, not for half an hour."""
    begun = []

    class Begun(subprocess.Popen):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            begun.append(self)

    def stop():
        raise Interrupted("stopped", exit_code=143)

    monkeypatch.setattr(subprocess, "Popen", Begun)
    monkeypatch.setattr(speed, "SIGN_S", 0.0)
    path = quantize.model_gguf(folded.path / "gguf")
    with pulse.heard(stop), pytest.raises(Interrupted):
        speed.measure_speed(path, Speed(prompt_tokens=8, new_tokens=8, repeats=1_000_000), 1, "cpu")
    assert [process.returncode for process in begun] == [1 if os.name == "nt" else -signal.SIGKILL]
