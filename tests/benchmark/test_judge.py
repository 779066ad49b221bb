"""ELYZA-tasks-100: graded by a judge that is asked over a real endpoint, or not scored at all."""

import json

import numpy as np
import pytest

from so8t.benchmark import grade, judges
from so8t.benchmark import run as benchmark
from so8t.benchmark.answers import read_jsonl, write_jsonl
from so8t.benchmark.config import Benchmark, EndpointJudge
from so8t.benchmark.grade import NO_GRADE
from so8t.benchmark.judge import grade_in, reason_in
from so8t.benchmark.writing import chrf, declines, japanese_share, repeated_share
from so8t.errors import InputError, StepFailed
from tests.benchmark.conftest import artifact, rows
from tests.benchmark.endpoint import KEY, endpoint
from tests.benchmark.outside import questions

TASK = "elyza_tasks_100"
WORDS = [f"題{n}" for n in range(14)]
ROWS = [{"input": f"{w}とは？", "output": f"{w}です。", "eval_aspect": f"{w}を言うこと"} for w in WORDS]
SYSTEMS = ("A", "A-Q8_0", "B", "C-F16", "C-Q8_0")


def reply_of(text: str) -> str:
    """A judge that looks for `good`, and answers in the asked form."""
    answer = text.split("# 回答\n")[1].split("\n\n# 出力")[0]
    return f'```json\n{{"reason": "見た", "grade": {5 if "good" in answer else 2}}}\n```'


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(judges, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setenv("SO8T_JUDGE_KEY", KEY)


def cell_of(folder, texts: list[str]):
    """A cell's answers with these replies."""
    lines = [
        {
            "id": f"q.jsonl-{n:06d}", "language": "ja", "category": "", "truth": "", "predicted": "", "ids": [n],
            "ids_sha256": f"{n}", "status": "ok", "error": "", "text": text, "shown": text, "ended": True, "tagged": False,
            "chrf": chrf(text, ROWS[n]["output"]),
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "answers.jsonl", lines)
    write_jsonl(folder / "replies.jsonl", [])
    return artifact(folder, "benchmark.cell")


def config_with(url: str | None, **changes) -> Benchmark:
    data = {
        TASK: {"kind": "hub", "id": "elyza/tasks", "revision": "unpinned", "files": ["x"], "licence": "cc-by-sa-4.0"}
    }
    judge = {"kind": "endpoint", "url": url, "model": "judge-1", "tries": 3} if url else None
    return Benchmark.model_validate(
        {"tasks": [TASK], "data": data, "judge": judge, "judge_repeats": 3, "resamples": 400, **changes}
    )


@pytest.fixture
def graded(tmp_path, progress):
    """Grade one system's texts: (facts, lines, artifact)."""

    def run(config: Benchmark, system: str, texts: list[str]):
        out = tmp_path / f"grades-{system}"
        out.mkdir(exist_ok=True)
        given = {
            "cell": cell_of(tmp_path / f"cell-{system}", texts),
            "questions": questions(tmp_path / "data", TASK, ROWS),
        }
        if system.startswith("C-"):
            (tmp_path / "fold").mkdir(exist_ok=True)
        facts = grade.run(config.judged(system, TASK), given, out, progress)
        return facts, read_jsonl(out / "grades.jsonl"), artifact(out, "benchmark.judged")

    return run


def texts_of(share: float, seed: int) -> list[str]:
    good = np.random.default_rng(seed).random(len(ROWS)) < share
    return [f"{word}は{'good' if g else 'bad'}" for word, g in zip(WORDS, good, strict=True)]


def test_grades_over_a_real_endpoint_that_stumbles(graded, no_pause):
    with endpoint(reply_of) as served:
        served.statuses = [429, 503, 200, 0]
        facts, lines, _ = graded(config_with(served.url, judge_repeats=5), "A", ["good", "", *["bad"] * 12])
        assert (facts["n"], facts["errors"], facts["judge"]) == (14, 0, "judge-1 at 127.0.0.1")
        assert [line["grade"] for line in lines] == [5, 1, *[2] * 12]
        assert sum("again" in line for line in lines) in (4, 5)  # the empty one is not asked about
        asked = [body["messages"][0]["content"] for body in served.asked]
        assert all(body["temperature"] == 0 and body["model"] == "judge-1" for body in served.asked)
        assert any("題0を言うこと" in text and "題0です。" in text for text in asked)
        assert not any("A" in text.replace("JSON", "") for text in asked), "nothing says which system wrote it"
        served.asked.clear()
        again, same, _ = graded(config_with(served.url, judge_repeats=5), "A", ["good", "", *["bad"] * 12])
        assert (again["asked_now"], same, served.asked) == (0, lines, [])


def test_an_endpoint_is_left_alone_as_long_as_it_asks(no_pause, monkeypatch):
    pauses = []
    monkeypatch.setattr(judges.time, "sleep", pauses.append)
    with endpoint(lambda text: "5") as served:
        served.statuses, served.retry_after = [429, 503], "7"
        judge = judges.EndpointScorer(EndpointJudge(kind="endpoint", url=served.url, model="x"))
        assert judge.ask("grade this", 8) == "5"
        served.statuses, served.retry_after = [429], "99999999"
        assert judge.ask("grade this", 8) == "5"
        judge.close()
    assert [pause for pause in pauses if pause > 1] == [7, 7, judges.ASKED_MAX_S]


def test_the_key_comes_from_the_environment_and_is_kept_nowhere(graded, no_pause, monkeypatch, tmp_path):
    with endpoint(reply_of) as served:
        graded(config_with(served.url), "A", ["good"] * 14)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
        monkeypatch.setenv("SO8T_JUDGE_KEY", "wrong")
        with pytest.raises(InputError, match="answers 401") as error:
            graded(config_with(served.url, judge_repeats=14), "B", ["other"] * 14)
        assert "wrong" not in str(error.value)
    monkeypatch.delenv("SO8T_JUDGE_KEY")
    with pytest.raises(InputError, match="SO8T_JUDGE_KEY"):
        judges.EndpointScorer(EndpointJudge(kind="endpoint", url=served.url, model="x"))


def test_a_reply_without_a_grade_is_an_error_and_nothing_stands_in_for_it(graded, no_pause):
    with endpoint(lambda text: "すばらしい" if "題3" in text else reply_of(text)) as served:
        facts, lines, _ = graded(config_with(served.url), "A", ["good"] * 14)
    assert (facts["errors"], [line["error"] for line in lines if "grade" not in line]) == (1, [NO_GRADE])


def test_an_endpoint_that_is_down_fails_the_step(graded, no_pause):
    with endpoint(reply_of) as served:
        served.statuses = [500] * 1000
        with pytest.raises(
            StepFailed, match=r"graded none of 14 replies; first: the judge .* did not answer in 3 tries"
        ):
            graded(config_with(served.url), "A", ["x"] * 14)


def report_of(tmp_path, progress, graded, config, skills: dict[str, float]):
    """Run the whole comparison; (results, report)."""
    given = {}
    for system, share in skills.items():
        texts = texts_of(share, 1 if share == 0.5 else 2)
        if config.judge:
            given[f"judged.{system}:{TASK}"] = graded(config, system, texts)[2]
        given[f"cell.{system}:{TASK}"] = cell_of(tmp_path / f"cell-{system}", texts)
    for name in ("train", "bake", "data"):
        (tmp_path / name).mkdir(exist_ok=True)
    from so8t import records

    records.write(tmp_path / "data" / "train.parquet", rows("train", 4, 0))
    given |= {name: artifact(tmp_path / name, name) for name in ("train", "bake", "data")}
    given[f"questions.{TASK}"] = questions(tmp_path / "data-questions", TASK, ROWS)
    benchmark.run(config, given, tmp_path / "out", progress)
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    return results, (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_without_a_judge_there_is_no_elyza_score(tmp_path, progress, graded):
    results, report = report_of(tmp_path, progress, graded, config_with(None), dict.fromkeys(SYSTEMS, 0.5))
    assert "rating" not in results["tasks"][TASK]["A"]
    assert {row["verdict"] for row in results["contrasts"]} == {"not scored"}
    assert "without a judge there is no ELYZA score" in report
    assert "ELYZA score: mean" not in report
    assert "| ELYZA score |" not in report
    assert "chrF (alarm)" in report
    assert results["rankings"][TASK] == {"why_not": "no judge, so no ELYZA score"}


def test_grades_are_compared_in_pairs(tmp_path, progress, graded, no_pause, monkeypatch):
    monkeypatch.setattr(grade, "refuse_itself", lambda config, inputs: None)  # these systems have no files
    with endpoint(reply_of) as served:
        skills = {"A": 0.1, "A-Q8_0": 0.1, "B": 0.9, "C-F16": 0.9, "C-Q8_0": 0.9}
        results, report = report_of(tmp_path, progress, graded, config_with(served.url), skills)
    by = {(row["contrast"], row["of"]): row for row in results["contrasts"]}
    assert (by["training", "B"]["verdict"], by["training", "B"]["unit"]) == ("better", "grade")
    assert by["baking", "C-F16"]["verdict"] == "shown"
    assert (by["quantization", "C-Q8_0"]["difference"], by["quantization", "C-Q8_0"]["p"]) == (0.0, 0.0)
    assert by["training", "B"]["wins"] > by["training", "B"]["losses"]
    assert results["judge"]["quadratic_kappa"] == 1.0
    ranking = results["rankings"][TASK]
    assert ranking["systems"][int(np.argmax(ranking["average_ranks"]))] in {"A", "A-Q8_0"}
    assert "ELYZA score: mean of the grades 1 to 5 by judge-1 at 127.0.0.1" in report
    assert "題" not in json.dumps(results, ensure_ascii=False), "ids and scores are published, texts are not"


def test_one_missing_grade_makes_the_task_incomplete(tmp_path, progress, graded, no_pause, monkeypatch):
    monkeypatch.setattr(grade, "refuse_itself", lambda config, inputs: None)
    with endpoint(lambda text: "?" if "題7は" in text else reply_of(text)) as served:
        results, report = report_of(tmp_path, progress, graded, config_with(served.url), dict.fromkeys(SYSTEMS, 0.5))
    assert results["complete"] is False
    assert results["errors"][TASK] == dict.fromkeys(SYSTEMS, 1)
    assert {row["verdict"] for row in results["contrasts"]} == {"incomplete"}
    assert "why_not" in results["rankings"][TASK]
    assert f"{TASK}: A gave no answer to 1 of 14 items." in report


def test_a_grade_is_read_from_json_or_a_digit_alone():
    assert grade_in('{"reason": "よい", "grade": 4}') == 4
    assert grade_in("5点") == 5
    assert grade_in('{"grade": "3"}') == 3
    for nothing in ("", "4点か5点です", '{"grade": 6}', '{"grade": 4.5}', '{"grade": 2} {"grade": 3}'):
        assert grade_in(nothing) is None
    assert reason_in('x {"reason": "よい", "grade": 4} y') == "よい"
    assert reason_in("4") == ""


def test_a_local_judge_is_asked_through_its_own_template(folded, tmp_path, progress):
    """The demo's model knows no grades: every reply is an error, and the step says so."""
    gguf = next(folded.path / f.path for f in folded.manifest.files if f.path.endswith("phi-3-F16.gguf"))
    data = {TASK: {"kind": "files", "paths": [str(gguf)], "licence": "x", "origin": "x"}}
    judge = {"kind": "gguf", "path": str(gguf), "context_tokens": 512}
    config = Benchmark.model_validate({"tasks": [TASK], "data": data, "judge": judge, "judge_tokens": 16})
    cell = cell_of(tmp_path / "cell", ["あ", "い"])
    short = questions(tmp_path / "data", TASK, [{"input": "?", "output": "!", "eval_aspect": "-"}] * 2)
    section = config.judged("A", TASK)
    assert section.judge.sha256
    assert "local file" in section.judge.label
    with pytest.raises(StepFailed, match="graded none of 2 replies"):
        grade.run(section, {"cell": cell, "questions": short}, tmp_path, progress)
    with pytest.raises(InputError, match="the judge is C-F16 itself"):
        grade.run(config.judged("C-F16", TASK), {"cell": cell, "questions": short, "fold": folded}, tmp_path, progress)


def test_alarms_without_a_judge():
    assert chrf("同じ文です。", "同じ文です。") == pytest.approx(1.0)
    assert chrf("", "何か") == 0.0
    assert 0 < chrf("猫が好きです", "犬が好きです") < 1
    assert repeated_share("あいうえおかきくけこ") == 0.0
    assert repeated_share("だからね、" * 40) > 0.9
    assert japanese_share("テストtest漢字") == pytest.approx(5 / 9)
    assert declines("申し訳ありませんが") and not declines("はい、どうぞ")  # noqa: PT018


@pytest.mark.oracle
def test_chrf_equals_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    pairs = [("the cat sat", "the cat sits down"), ("東京は日本の首都", "日本の首都は東京です"), ("ab", "abcdefgh")]
    for reply, reference in pairs:
        assert 100 * chrf(reply, reference) == pytest.approx(sacrebleu.sentence_chrf(reply, [reference]).score)
