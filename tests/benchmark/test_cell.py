import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from so8t import records
from so8t.benchmark import ask, cell
from so8t.benchmark.answers import read_jsonl
from so8t.errors import StepFailed
from tests.benchmark.conftest import artifact, cell_config, lines_of, rows

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("system", ["A", "C-F16"])
@pytest.mark.parametrize("task", ["safety", "tones"])
def test_every_item_is_answered(system, task, inputs, tmp_path, progress):
    facts = cell.run(cell_config(system, task), inputs(system), tmp_path, progress)
    answers = read_jsonl(tmp_path / "answers.jsonl")
    assert facts["n"] == len(answers) == {"safety": 20, "tones": 8}[task]
    assert facts["errors"] == 0
    assert [a["id"] for a in answers] == sorted(a["id"] for a in answers)
    for a in answers:
        assert a["predicted"] == max(a["logprobs"], key=a["logprobs"].get)
    assert facts["accuracy"] == sum(a["predicted"] == a["truth"] for a in answers) / len(answers)
    assert len(read_jsonl(tmp_path / "replies.jsonl")) == 1


def test_all_systems_get_the_same_ids(inputs, tmp_path, progress):
    digests = []
    for system in ("A", "B", "C-F16"):
        cell.run(cell_config(system, "digits"), inputs(system), tmp_path / system, _made(tmp_path / system, progress))
        digests.append([a["ids_sha256"] for a in read_jsonl(tmp_path / system / "answers.jsonl")])
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[0])) == 8


def _made(folder: Path, progress):
    folder.mkdir()
    return progress


def test_a_second_run_asks_nothing(inputs, tmp_path, progress, monkeypatch):
    config = cell_config("C-F16", "safety")
    first = cell.run(config, inputs("C-F16"), tmp_path, progress)
    before = (tmp_path / "answers.jsonl").read_bytes(), (tmp_path / "replies.jsonl").read_bytes()
    monkeypatch.setattr(ask, "open_scorer", None)  # opening a model now would raise
    second = cell.run(config, inputs("C-F16"), tmp_path, progress)
    assert (first["asked_now"], second["asked_now"]) == (21, 0)
    assert ((tmp_path / "answers.jsonl").read_bytes(), (tmp_path / "replies.jsonl").read_bytes()) == before


def test_one_changed_byte_of_the_model_gives_no_hit(inputs, folded, tmp_path, progress):
    config = cell_config("C-F16", "safety")
    cell.run(config, inputs("C-F16"), tmp_path, progress)
    gguf = next(entry for entry in folded.manifest.files if entry.path.endswith("phi-3-F16.gguf"))
    other = gguf.model_copy(update={"sha256": ("0" if gguf.sha256[0] != "0" else "1") + gguf.sha256[1:]})
    files = [other if entry == gguf else entry for entry in folded.manifest.files]
    changed = type(folded)(folded.path, folded.manifest.model_copy(update={"files": files}))
    again = cell.run(config, {**inputs("C-F16"), "fold": changed}, tmp_path, progress)
    assert again["asked_now"] == 21


def test_one_changed_byte_of_the_template_gives_no_hit(inputs, world, tmp_path, progress):
    config = cell_config("C-F16", "safety")
    train = tmp_path / "train"
    shutil.copytree(world.train.path, train)
    given = {**inputs("C-F16"), "train": artifact(train, "train")}
    for text, asked in (("", 21), ("{# #}", 21)):
        with (train / "tokenizer" / "chat_template.jinja").open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
        assert cell.run(config, given, tmp_path, progress)["asked_now"] == asked
    assert cell.run(config, given, tmp_path, progress)["asked_now"] == 0


def test_an_item_that_cannot_be_asked_is_an_error_and_no_wrong_answer(inputs, tmp_path, progress):
    data = tmp_path / "data"
    broken = [row.with_(image=b"") if row.id.endswith("image-03") else row for row in rows("test", 4, 8)]
    records.write(data / "test.parquet", broken)
    records.write(data / "train.parquet", rows("train", 4, 4))
    given = {**inputs("C-F16"), "data": artifact(data, "preprocess")}
    facts = cell.run(cell_config("C-F16", "digits"), given, tmp_path, progress)
    assert (facts["n"], facts["errors"]) == (8, 1)
    (bad,) = [a for a in read_jsonl(tmp_path / "answers.jsonl") if a["status"] != "ok"]
    assert (bad["id"], bad["predicted"], bad["error"]) == ("test-image-03", "", "it has no image")
    right = sum(a["predicted"] == a["truth"] for a in read_jsonl(tmp_path / "answers.jsonl"))
    assert facts["accuracy"] == right / 7


def test_nothing_that_can_be_asked_fails_the_step(inputs, tmp_path, progress):
    with pytest.raises(StepFailed, match="none of 20 items"):
        cell.run(cell_config("C-F16", "safety", context_tokens=8), inputs("C-F16"), tmp_path, progress)


CHILD = """
import json, os, signal, sys
from pathlib import Path
from so8t.artifacts import Artifact, Manifest
from so8t.benchmark import cell, scorer_llama
from so8t.benchmark.config import Cell
from so8t.config import Machine
from so8t.progress import Progress

given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
inputs = {role: Artifact(Path(path), Manifest.model_validate(m)) for role, (path, m) in given["inputs"].items()}
log = Path(given["log"])
choose = scorer_llama.LlamaScorer.choose

def logged(self, questions):
    with log.open("a", encoding="utf-8", newline="\\n") as file:
        file.writelines(q.id + "\\n" for q in questions)
    return choose(self, questions)

scorer_llama.LlamaScorer.choose = logged

class Cut:
    reports = 0
    def report(self, step, done, total, message, metrics):
        self.reports += 1
        if self.reports == given["cut"]:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

machine = Machine(threads=1, device="cpu")
cell.run(Cell(**given["config"]), inputs, Path(given["out"]), Progress("cell", machine, log.parent, (Cut(),)))
"""


def run_child(folder: Path, inputs, config, cut: int) -> int:
    given = {
        "inputs": {role: [str(a.path), a.manifest.model_dump(mode="json")] for role, a in inputs.items()},
        "config": config.model_dump(mode="json"),
        "out": str(folder / "out"),
        "log": str(folder / "asked.txt"),
        "cut": cut,
    }
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(folder / "given.json")]
    return subprocess.run(command, check=False, env=environment, cwd=folder, timeout=120).returncode


def killed_and_resumed(folder: Path, config, given, cuts, progress) -> None:
    """Kill after each count of reports, resume, and compare with a run that nobody disturbed."""
    for name in ("whole", "out"):
        (folder / name).mkdir()
    cell.run(config, given, folder / "whole", progress)
    for cut in cuts:
        assert run_child(folder, given, config, cut=cut) == -signal.SIGKILL
    assert not (folder / "out" / "answers.jsonl").exists()
    assert run_child(folder, given, config, cut=0) == 0
    asked = lines_of(folder / "asked.txt")
    assert len(asked) == len(set(asked)) == 20
    for name in ("answers.jsonl", "replies.jsonl"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL")
def test_killed_and_resumed_no_item_is_asked_twice_and_the_bytes_are_the_same(inputs, tmp_path, progress):
    killed_and_resumed(tmp_path, cell_config("C-F16", "safety"), inputs("C-F16"), (1, 3), progress)


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL")
def test_five_kills(inputs, tmp_path, progress):
    config = cell_config("C-F16", "safety", batch_items=3)
    killed_and_resumed(tmp_path, config, inputs("C-F16"), (1, 2, 3, 4, 6), progress)


def test_a_llama_cell_imports_neither_torch_nor_transformers():
    code = "import sys, so8t.benchmark.cell, so8t.benchmark.scorer_llama; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, encoding="utf-8", cwd=ROOT
    )
    assert done.stdout.strip() == "set()"
