"""lm-evaluation-harness: its tasks through our scorers, against its own transformers backend; skipped without it."""

import json

import pytest

from so8t.benchmark import cell
from so8t.benchmark.answers import read_jsonl
from so8t.benchmark.config import Benchmark
from so8t.errors import InputError

CHOICES = """
task: so8t_colours
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{q}}\\nAnswer:"
doc_to_target: "{{gold}}"
doc_to_choice: ["red", "deep blue", "green as grass"]
metric_list: [{metric: acc}]
"""
WRITTEN = """
task: so8t_words
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "Say it: {{q}}"
doc_to_target: "{{q}}"
generation_kwargs: {until: ["."], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Task files and their data, offline."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    made = tmp_path / "tasks"
    made.mkdir()
    rows = [{"q": f"the colour of thing {n}", "gold": n % 3} for n in range(12)]
    (made / "data.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, text in (("colours", CHOICES), ("words", WRITTEN)):
        (made / f"{name}.yaml").write_text(text % (made / "data.json"), encoding="utf-8")
    return made


def config_of(folder, system: str, task: str, **changes):
    return Benchmark(tasks=(task,), harness_tasks=folder, **changes).cell(system, task)


@pytest.mark.oracle
@pytest.mark.parametrize("system", ["A", "C-F16"])
def test_its_tasks_are_asked_once_and_the_same_of_every_system(system, folder, inputs, tmp_path, progress):
    pytest.importorskip("lm_eval")
    for task, now in (("lm_eval.so8t_colours", 12), ("lm_eval.so8t_words", 12)):
        out = tmp_path / task
        out.mkdir()
        facts = cell.run(config_of(folder, system, task), inputs(system), out, progress)
        answers = read_jsonl(out / "answers.jsonl")
        assert (facts["n"], facts["errors"], facts["asked_now"]) == (12, 0, now)
        assert {a["category"] for a in answers} == {task.removeprefix("lm_eval.")}
        again = cell.run(config_of(folder, system, task), inputs(system), out, progress)
        assert (again["asked_now"], read_jsonl(out / "answers.jsonl")) == (0, answers)
        few = tmp_path / f"few-{task}"
        few.mkdir()
        assert cell.run(config_of(folder, system, task, items_max=3), inputs(system), few, progress)["n"] == 3


@pytest.mark.oracle
def test_answers_are_those_of_its_own_transformers_backend(folder, inputs, tmp_path, progress, world):
    pytest.importorskip("lm_eval")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from so8t.models import load_base, load_tokenizer

    theirs = HFLM(
        pretrained=load_base(world.base.path), tokenizer=load_tokenizer(world.train.path / "tokenizer"), batch_size=1,
        add_bos_token=True,
    )  # fmt: skip
    manager = TaskManager(include_path=str(folder))
    for task in ("so8t_colours", "so8t_words"):
        found = simple_evaluate(model=theirs, tasks=[task], task_manager=manager, bootstrap_iters=0)
        samples = found["samples"][task]
        metric = "acc" if task == "so8t_colours" else "exact_match"
        out = tmp_path / task
        out.mkdir()
        cell.run(config_of(folder, "A", f"lm_eval.{task}"), inputs("A"), out, progress)
        mine = {a["id"]: a["predicted"] for a in read_jsonl(out / "answers.jsonl")}
        assert mine == {f"{task}-{int(s['doc_id']):05d}": "right" if s[metric] else "wrong" for s in samples}


def test_a_task_of_the_harness_needs_its_extra(inputs, tmp_path, progress):
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(InputError, match="the extra lm-eval"):
            cell.run(
                Benchmark(tasks=("lm_eval.arc_easy",)).cell("A", "lm_eval.arc_easy"), inputs("A"), tmp_path, progress
            )
    else:
        pytest.skip("it is installed")


def test_its_names_are_checked_by_the_config():
    with pytest.raises(ValueError, match="tasks"):
        Benchmark(tasks=("lm_eval.../etc",))
