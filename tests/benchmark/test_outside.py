"""Tasks on questions from outside: what is asked, what counts as right, and that every system is asked the same."""

import math
import os
from pathlib import Path

import pytest

from so8t import records
from so8t.benchmark import ask, cell, contamination
from so8t.benchmark.answers import read_jsonl, shown
from so8t.benchmark.config import Benchmark, HubQuestions
from so8t.benchmark.items import extract, outside_items
from so8t.benchmark.prompts import Question, Unanswerable
from so8t.benchmark.scorer import open_scorer
from so8t.benchmark.scorer_llama import LlamaScorer
from so8t.benchmark.task import load_task
from so8t.collect import questions as collect_questions
from so8t.config import Machine
from so8t.errors import InputError, StepFailed
from so8t.questions import FileQuestions
from tests.benchmark.conftest import rows
from tests.benchmark.outside import ROWS, questions

CHOOSE = [name for name in ROWS if load_task(name).kind == "choose"]


def config_of(system: str, task: str, **changes) -> object:
    data = {task: {"kind": "files", "paths": ["x.jsonl"], "licence": "mit", "origin": "here"}}
    made = Benchmark.model_validate({"tasks": [task], "data": data, "tokens_max": 12, **changes})
    return made.cell(system, task)


@pytest.fixture
def ask_one(inputs, tmp_path, progress):
    """Run a cell; (facts, answers)."""

    def run(system: str, task: str, given=None, **changes):
        out = tmp_path / f"{system}-{task}"
        out.mkdir(exist_ok=True)
        held = questions(tmp_path / f"data-{task}", task, given)
        facts = cell.run(config_of(system, task, **changes), {**inputs(system), "questions": held}, out, progress)
        return facts, read_jsonl(out / "answers.jsonl")

    return run


@pytest.fixture
def exam(inputs, tmp_path):
    def make(task: str, **changes):
        held = questions(tmp_path / task, task)
        return cell.prepare(config_of("B", task, **changes), {**inputs("B"), "questions": held})

    return make


def whole_texts(exam, item) -> list[str]:
    decode = exam.form.tokenizer.decode
    return [decode([*item.asked.after, *ids]) for ids in item.asked.choices]


def test_what_each_task_asks(exam):
    texts = {}
    for name in CHOOSE:
        made = exam(name)
        assert len(made.items) == len(ROWS[name])
        texts[name] = [(item.truth, whole_texts(made, item)) for item in made.items]
    truth, wholes = texts["mmlu"][0]
    assert truth == "B"
    assert wholes[1].endswith("about school sums.\n\nTwo and two?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer: B")
    truth, wholes = texts["hellaswag"][0]
    assert truth == "C"
    assert wholes[2].endswith("Tea: A man boils water. Now He pours it into a cup of tea.")
    assert wholes[1].endswith("He sleeps on.")
    assert texts["arc_challenge"][0][1][1].endswith("Question: What melts ice?\nAnswer: heat")
    truth, wholes = texts["winogrande"][0]
    assert truth == "B"
    assert wholes[1].endswith("Ken thanked Bob because Bob had helped.")
    assert texts["winogrande"][1][1][0].endswith("Bob was thanked by Ken.")
    assert texts["jcommonsenseqa"][0][1][0].endswith("選択肢：傘、皿、靴、机、本\n答え：傘")
    assert [truth for truth, _ in texts["jcommonsensemorality"]] == ["wrong", "permissible"]
    written = exam("gsm8k")
    assert written.items[0].truth == "1007"
    assert "How many?" in written.form.tokenizer.decode(written.asked[0].after)
    assert exam("elyza_tasks_100").items[1].reference == "海は良いものです。"


def test_with_an_ending_only_what_follows_the_option_is_scored(exam, inputs):
    made = exam("winogrande")
    question = made.items[0].asked
    ending = [made.form.tokenizer.decode(ids[n:]) for ids, n in zip(question.choices, question.given, strict=True)]
    assert [text.strip() for text in ending] == ["had helped.", "had helped."]
    scorer = open_scorer("C-F16", inputs("C-F16"), Machine(threads=1, device="cpu"), 256, "F32")
    (partial,) = scorer.choose([question])
    whole, alone = (
        scorer.choose([Question("x", (), b"", 0, question.after, (), tuple(ids[:n] for ids, n in zip(question.choices, cut, strict=True)))])[0]
        for cut in ([len(ids) for ids in question.choices], question.given)
    )  # fmt: skip
    scorer.close()
    assert partial == pytest.approx([a - b for a, b in zip(whole, alone, strict=True)], abs=1e-4)


@pytest.mark.parametrize("task", ["hellaswag", "winogrande", "jcommonsensemorality"])
def test_backends_are_asked_the_same_and_agree(task, ask_one):
    live, baked = (ask_one(system, task, kv_cache="F32")[1] for system in ("B", "C-F16"))
    assert [a["ids_sha256"] for a in live] == [a["ids_sha256"] for a in baked]
    for one, other in zip(live, baked, strict=True):
        assert one["logprobs"].keys() == other["logprobs"].keys()
        assert list(one["logprobs"].values()) == pytest.approx(list(other["logprobs"].values()), abs=0.1)


def test_normalised_by_characters(ask_one, exam, inputs):
    _, (answer,) = ask_one("C-F16", "arc_challenge")
    scorer = open_scorer("C-F16", inputs("C-F16"), Machine(threads=1, device="cpu"), 256)
    (raw,) = scorer.choose(exam("arc_challenge").asked)
    scorer.close()
    expected = [value / len(text) for value, text in zip(raw, ("cold", "heat", "dark"), strict=True)]
    assert list(answer["logprobs"].values()) == pytest.approx(expected, abs=1e-3)


def test_a_written_answer_is_found_in_the_reply():
    task = load_task("gsm8k")
    assert extract(task, "3 pens + 4 = 7.\n#### 1,007") == "1007"
    assert extract(task, "about -2.50 in all") == "-2.5"
    assert extract(task, "no number") == ""
    assert shown("plain answer ") == "plain answer"
    assert shown("<think-task>x</think-task> 7") == ""
    tagged = "<think-task>a</think-task><think-safety><|allow|> b</think-safety><think-policy>c</think-policy><final>7</final>"
    assert shown(tagged) == "7"


def test_written_replies_are_kept_with_their_ids_and_a_second_run_asks_nothing(ask_one, monkeypatch):
    facts, (line,) = ask_one("C-F16", "gsm8k")
    assert (line["status"], facts["asked_now"], facts["new_tokens"] > 0) == ("ok", 1, True)
    assert len(line["ids"]) == 12 or line["ended"]
    assert facts["file_bytes"] > 0
    monkeypatch.setattr(ask, "open_scorer", None)
    again, (same,) = ask_one("C-F16", "gsm8k")
    assert (again["asked_now"], same) == (0, line)


def test_one_changed_byte_of_a_question_gives_no_hit(ask_one):
    assert ask_one("C-F16", "mmlu")[0]["asked_now"] == 2
    changed = [ROWS["mmlu"][0] | {"question": "Two and three?"}, ROWS["mmlu"][1]]
    assert ask_one("C-F16", "mmlu", changed)[0]["asked_now"] == 2  # both share a batch
    assert ask_one("C-F16", "mmlu", changed)[0]["asked_now"] == 0


def test_items_max_takes_the_same_items_whatever_is_appended(exam, tmp_path, inputs):
    task, form = load_task("jcommonsensemorality"), exam("jcommonsensemorality").form
    many = [{"sent": f"文{n}", "label": "0"} for n in range(40)]
    few, more = (
        {i.id for i in outside_items(task, questions(tmp_path / f"{k}", task.name, many[:k]).path, 10, form)}
        for k in (30, 40)
    )
    assert (len(few), len(more)) == (10, 10)
    assert more - few <= {f"q.jsonl-{n:06d}" for n in range(30, 40)}


def test_rows_of_another_data_set_are_refused_with_their_columns(ask_one):
    with pytest.raises(InputError, match=r"does not suit the task mmlu[\s\S]*'sent'"):
        ask_one("C-F16", "mmlu", [{"sent": "x"}])
    with pytest.raises(InputError, match="the answer 7"):
        ask_one("C-F16", "mmlu", [ROWS["mmlu"][0] | {"answer": 7}])


def test_a_task_without_its_questions_is_refused_by_the_config():
    with pytest.raises(ValueError, match=r"benchmark.data says nothing of mmlu"):
        Benchmark(tasks=("mmlu",))
    hub = HubQuestions(kind="hub", id="cais/mmlu", revision="unpinned", files=("a.parquet",), licence="mit")
    assert Benchmark(tasks=("mmlu", "digits"), data={"mmlu": hub}).outside() == ["mmlu"]


def test_local_files_are_meant_from_the_config_s_folder(tmp_path):
    data = {"mmlu": {"kind": "files", "paths": ["q.jsonl"], "licence": "mit", "origin": "here"}}
    judge = {"kind": "gguf", "path": "judge.gguf"}
    made = Benchmark.model_validate(
        {"data": data, "judge": judge, "harness_tasks": "own"}, context={"folder": tmp_path}
    )
    assert made.data["mmlu"].paths == (tmp_path / "q.jsonl",)
    assert (made.judge.path, made.harness_tasks) == (tmp_path / "judge.gguf", tmp_path / "own")


def test_a_question_longer_than_the_context_is_an_error(exam):
    (item, _) = exam("mmlu", context_tokens=32).items
    assert isinstance(item.asked, Unanswerable)
    assert "the context holds 32" in item.asked.why


def fails_on(monkeypatch, ids: set[str]) -> None:
    """The real backend, except for some items."""
    choose = LlamaScorer.choose

    def failing(self, asked):
        for question in asked:
            if question.id in ids:
                raise StepFailed("llama_decode gave -3")
        return choose(self, asked)

    monkeypatch.setattr(LlamaScorer, "choose", failing)


def test_a_backend_that_fails_on_some_items_costs_no_other_its_answer(ask_one, monkeypatch):
    many = [ROWS["mmlu"][0] | {"question": f"Two and {n}?"} for n in range(7)]
    whole, _ = ask_one("C-F16", "mmlu", many)
    bad = {"q.jsonl-000001", "q.jsonl-000005"}
    fails_on(monkeypatch, bad)
    facts, answers = ask_one("C-F16", "mmlu", [row | {"subject": "x"} for row in many])
    assert (facts["n"], facts["errors"], whole["errors"]) == (7, 2, 0)
    assert {a["id"] for a in answers if a["status"] == "error"} == bad
    assert {a["error"] for a in answers if a["status"] == "error"} == {"llama_decode gave -3"}
    assert all(math.isfinite(v) for a in answers if a["status"] == "ok" for v in a["logprobs"].values())
    monkeypatch.undo()
    mended, answers = ask_one("C-F16", "mmlu", [row | {"subject": "x"} for row in many])
    assert (mended["errors"], mended["asked_now"]) == (0, 7)  # the batch of the failed ones is asked again as a whole


def test_a_backend_that_fails_on_every_item_fails_the_step(ask_one, monkeypatch):
    fails_on(monkeypatch, {f"q.jsonl-{n:06d}" for n in range(2)})
    with pytest.raises(StepFailed, match="none of 2 items was answered; first: llama_decode"):
        ask_one("C-F16", "mmlu")


def test_questions_in_the_training_split_are_found():
    train = [
        *rows("train", 6, 0),
        rows("train", 1, 0)[0].with_(
            prompt="前置き。" + "ある日、森の中で熊さんに出会った話を書いてください" + "。以上"
        ),
    ]
    asked = {
        "held": "ある日、森の中で熊さんに出会った話を書いてください。",
        "clean": "海の生き物について、知っていることを全部教えてください。",
        "short": "森の中で熊",
        "absent": "虎と竜",
    }
    found = contamination.check(asked, train)
    assert (found["items"], found["flagged"], found["certain"]) == (4, ["held", "short"], 2)
    assert contamination.check(asked, rows("train", 6, 0))["flagged"] == []
    assert contamination.check(asked, [records.Record("x", "text", "ja", "ある日、森の中で熊さんに出")])["flagged"] == [
        "short"
    ]


REAL = os.environ.get("SO8T_REALDATA", "")


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="SO8T_REALDATA")
def test_real_questions(inputs, tmp_path, progress, exam):
    form = exam("mmlu").form
    found = {}
    for task, path in (
        ("elyza_tasks_100", "elyza-tasks-100-CC-BY-SA/dataset.jsonl"),
        ("jcommonsensemorality", "jcommonsensemorality/data_test.csv"),
    ):
        out = tmp_path / f"real-{task}"
        out.mkdir()
        config = FileQuestions(kind="files", paths=(Path(REAL) / path,), licence="x", origin="x")
        facts = collect_questions.run(config, {}, out, progress)
        found[task] = outside_items(load_task(task), out, 0, form)
        assert facts["rows"] == len(found[task])
    elyza = found["elyza_tasks_100"]
    assert len(elyza) == 100
    assert all(item.reference and item.aspect for item in elyza)
    assert {item.truth for item in found["jcommonsensemorality"]} == {"permissible", "wrong"}
    asked = {item.id: item.prompt for item in elyza}
    verbatim = [records.Record(name, "text", "ja", text) for name, text in asked.items()]
    assert len(contamination.check(asked, verbatim)["flagged"]) == 100
    other = [records.Record(i.id, "text", "ja", i.prompt) for i in found["jcommonsensemorality"]]
    assert contamination.check(asked, other)["flagged"] == []


def test_a_changed_file_beside_the_harness_tasks_is_another_cell(tmp_path):
    """Its YAML includes files without an ending and calls functions of Python files."""
    seen = set()
    for name in ("a.yaml", "_default_yaml", "utils.py", "rows/a.jsonl"):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for text in ("a", "b"):
            path.write_text(text, encoding="utf-8", newline="\n")
            made = Benchmark(tasks=("lm_eval.x",), harness_tasks=tmp_path / "own")
            seen.add(made.cell("A", "lm_eval.x").task_sha256)
    assert len(seen) == 8


def test_a_contrast_on_a_task_that_is_not_asked_is_refused_at_once():
    contrast = {"name": "x", "of": "B", "against": "A", "test": "superiority", "tasks": ["digits"]}
    with pytest.raises(ValueError, match="'x' names digits"):
        Benchmark.model_validate({"tasks": ["safety"], "contrasts": [contrast]})
