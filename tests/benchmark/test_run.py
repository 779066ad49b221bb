import json
import math
import re

import numpy as np
import pytest

from so8t.artifacts import Artifact
from so8t.benchmark import run as benchmark
from so8t.benchmark.answers import write_jsonl
from so8t.benchmark.config import Benchmark, Contrast
from so8t.benchmark.task import load_task
from so8t.errors import ConfigError, StepFailed
from tests.benchmark.conftest import artifact

CONFIG = Benchmark(tasks=("safety", "digits"), resamples=400)
SYSTEMS = ("A", "A-Q8_0", "B", "C-F16", "C-Q8_0", "C-Q4_K_M")


def answers(task: str, skill: float, seed: int, n: int = 120) -> list[dict]:
    names = load_task(task).names
    generator = np.random.default_rng(seed)
    lines = []
    for index in range(n):
        truth = names[index % len(names)]
        predicted = truth if generator.random() < skill else names[int(generator.integers(len(names)))]
        logprobs = {name: math.log(0.7) if name == predicted else math.log(0.3 / (len(names) - 1)) for name in names}
        line = {
            "id": f"{index:04}",
            "language": "ja",
            "category": f"分類|{index % 3}",
            "truth": truth,
            "predicted": predicted,
        }
        lines.append({**line, "logprobs": logprobs, "ids_sha256": f"{task}{index}", "status": "ok", "error": ""})
    return lines


@pytest.fixture
def make(tmp_path):
    """Inputs of the step from skills by system; `change` may edit a cell's lines."""

    def give(skills: dict[str, float], change=None, seed=None) -> dict[str, Artifact]:
        found = {}
        for task in CONFIG.tasks:
            for number, (system, skill) in enumerate(skills.items()):
                lines = answers(task, skill, number if seed is None else seed)
                if change:
                    change(system, task, lines)
                folder = tmp_path / f"{system}-{task}"
                folder.mkdir(exist_ok=True)
                write_jsonl(folder / "answers.jsonl", lines)
                reply = {"id": "0000", "ids": [number > 0], "text": "x", "well_formed": number > 0, "label": ""}
                write_jsonl(folder / "replies.jsonl", [reply])
                found[f"cell.{system}:{task}"] = artifact(folder, "benchmark.cell", seconds=1.5)
        for name in ("train", "bake", "data"):
            (tmp_path / name).mkdir(exist_ok=True)
        history = [{"phase": "sft", "step": step, "loss": 3.0 / (step + 1)} for step in range(9)]
        write_jsonl(tmp_path / "train" / "history.jsonl", history)
        return {**found, **{name: artifact(tmp_path / name, name) for name in ("train", "bake", "data")}}

    return give


SKILLS = {"A": 0.1, "A-Q8_0": 0.1, "B": 0.9, "C-F16": 0.9, "C-Q8_0": 0.9, "C-Q4_K_M": 0.5}


def results_of(folder) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_a_gain_a_loss_and_their_sentences(make, tmp_path, progress):
    out = tmp_path / "out"
    facts = benchmark.run(CONFIG, make(SKILLS), out, progress)
    rows = {(r["contrast"], r["task"], r["of"], r["measure"]): r for r in results_of(out)["contrasts"]}
    assert rows["training", "safety", "B", "macro_f1"]["verdict"] == "better"
    assert rows["training", "digits", "B", "accuracy"]["family"] == 2
    delivered = {(of, row["against"]) for (name, _, of, _), row in rows.items() if name == "delivered"}
    assert delivered == {("C-Q8_0", "A-Q8_0")}, "one type on both sides"
    assert rows["delivered", "safety", "C-Q8_0", "macro_f1"]["verdict"] == "better"
    assert rows["quantization", "digits", "C-Q4_K_M", "accuracy"]["verdict"] == "not shown"
    assert rows["quantization", "safety", "C-Q4_K_M", "free of under_blocking"]["n"] == 60
    assert facts["complete"] is True
    found = {(r["task"], r["system"]): (r["n"], r["well_formed"], r["same_as_B"]) for r in facts["replies"]}
    assert found["safety", "A"] == (1, 0, 0)
    assert found["safety", "C-F16"] == (1, 1, 1)
    assert facts["scores"]["digits"]["B"]["n"] == 120
    for row in rows.values():
        assert all(math.isfinite(row[name]) for name in ("difference", "p"))


def test_equal_systems_differ_by_zero_with_p_one(make, tmp_path, progress):
    out = tmp_path / "out"
    benchmark.run(CONFIG, make(dict.fromkeys(SYSTEMS, 0.8), seed=1), out, progress)
    for row in results_of(out)["contrasts"]:
        assert row["difference"] == 0.0
        if row["test"] == "superiority":
            assert (row["p"], row["p_holm"], row["verdict"]) == (1.0, 1.0, "no evidence")
            assert (row["interval"]["low"], row["interval"]["high"]) == (0.0, 0.0)
            assert 0 < row["mde"] < 0.2
            assert "would be found" in row["sentence"]
        if row["n"] == 120:
            assert row["verdict"] in {"no evidence", "shown"}
    assert "nan" not in (out / "report.md").read_text(encoding="utf-8").lower()


def test_one_error_makes_the_task_incomplete_and_nothing_is_ranked_on_it(make, tmp_path, progress):
    def change(system, task, lines):
        if (system, task) == ("B", "safety"):
            lines[7] |= {"status": "error", "predicted": "", "logprobs": {}, "ids_sha256": "", "error": "too long"}

    out = tmp_path / "out"
    facts = benchmark.run(CONFIG, make(SKILLS, change), out, progress)
    assert facts["complete"] is False
    rows = results_of(out)["contrasts"]
    hit = [r for r in rows if r["task"] == "safety" and "B" in {r["of"], r["against"]}]
    assert {r["verdict"] for r in hit} == {"incomplete"}
    assert all("p" not in r and "difference" not in r for r in hit)
    assert any(r["verdict"] == "better" for r in rows if r["task"] == "digits")
    assert results_of(out)["tasks"]["safety"]["B"]["errors"] == 1
    assert sum(map(sum, results_of(out)["tasks"]["safety"]["B"]["confusion"])) == 119
    assert facts["errors"]["safety"] == {"A": 0, "A-Q8_0": 0, "B": 1, "C-F16": 0, "C-Q8_0": 0, "C-Q4_K_M": 0}
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "INCOMPLETE" in report
    assert "- safety: B gave no answer to 1 of 120 items." in report
    assert results_of(out)["rankings"]["safety"] == {"why_not": "incomplete: not every system answered every item"}
    assert results_of(out)["rankings"]["digits"]["n"] == 120


def test_other_token_ids_fail_the_step(make, tmp_path, progress):
    def change(system, task, lines):
        if system == "C-Q8_0":
            lines[3]["ids_sha256"] = "other"

    with pytest.raises(StepFailed, match="other token ids for 0003"):
        benchmark.run(CONFIG, make(SKILLS, change), tmp_path / "out", progress)


def test_other_items_fail_the_step(make, tmp_path, progress):
    def change(system, task, lines):
        if system == "B":
            lines.pop()

    with pytest.raises(StepFailed, match="answered different items"):
        benchmark.run(CONFIG, make(SKILLS, change), tmp_path / "out", progress)


def test_no_answer_at_all_fails_the_step(make, tmp_path, progress):
    def change(system, task, lines):
        for line in lines:
            line |= {"status": "error", "predicted": "", "logprobs": {}, "ids_sha256": ""}

    with pytest.raises(StepFailed, match="nothing to report"):
        benchmark.run(CONFIG, make(SKILLS, change), tmp_path / "out", progress)


def test_a_contrast_with_an_unknown_system_is_refused(make, tmp_path, progress):
    config = CONFIG.model_copy(update={"contrasts": (Contrast(name="x", of="D", against="A", test="superiority"),)})
    with pytest.raises(ConfigError, match="'D'"):
        benchmark.run(config, make(SKILLS), tmp_path / "out", progress)


def slower(inputs: dict[str, Artifact]) -> dict[str, Artifact]:
    """The same cells, measured on a slower day."""
    return {
        role: Artifact(a.path, a.manifest.model_copy(update={"facts": {"seconds": 99.0, "memory_peak_bytes": 10**9}}))
        for role, a in inputs.items()
    }


def test_same_answers_give_the_same_bytes_and_a_page_that_needs_no_other_file(make, tmp_path, progress):
    inputs = make(SKILLS)
    benchmark.run(CONFIG, inputs, tmp_path / "one", progress)
    benchmark.run(CONFIG, slower(inputs), tmp_path / "two", progress)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert all(one.pop(name) != two.pop(name) for name in ("speed.json", "speed.md"))
    assert one == two
    assert {"results.json", "report.md", "report.html", "forest.png", "training.png"} <= one.keys()
    assert {"confusion_safety.png", "calibration_digits.png"} <= one.keys()
    page = one["report.html"].decode("utf-8")
    assert "分類|1" in page
    assert not re.findall(r'(?:href|src)="(?!data:image/png;base64,)', page)
    rows = [line for line in one["report.md"].decode("utf-8").splitlines() if line.startswith("| 分類")]
    assert {line.count("|") - line.count("\\|") for line in rows} == {len(SYSTEMS) + 2}
