"""The embedded default, end to end: one real `so8t run`, then everything that is promised of its result."""

import json
from pathlib import Path

import pytest

from so8t.artifacts import Store, check_hashes, load
from so8t.config import load_config
from so8t.session import sessions
from so8t.wiring import SEVEN
from tests.conftest import ROOT, command

SEVEN_NAMES = [ref.step for ref in SEVEN]
TASKS = ("safety", "digits", "tones")
# The whole demo is one fixture: minutes on two cores that nobody shares, a quarter of an hour where others work too.
pytestmark = pytest.mark.timeout(1800)


def test_run_completes_and_says_so(demo, demo_home):
    summary = demo.json
    assert summary["state"] == "completed"
    assert [name for name in summary["steps"] if name in SEVEN_NAMES] == SEVEN_NAMES
    for name, step in summary["steps"].items():
        assert set(step) == {"key", "content", "cached", "seconds", "facts"}
        assert not step["cached"]
        folder = Path(summary["artifacts"][name])
        assert load(folder).content == step["content"]
        assert check_hashes(folder) == []
    assert json.loads((demo_home / "logs" / "attempt_1" / "summary.json").read_text(encoding="utf-8")) == summary
    (session,) = [one for one in sessions(demo_home) if one.kind == "run"]
    folders = {f"{folder.parent.name}/{folder.name}" for folder in map(Path, summary["artifacts"].values())}
    assert set(session.artifacts) == folders, "cleanup must know what a run uses"


def test_progress_was_visible(demo):
    lines = demo.err.splitlines()
    for name in ("collect.base", "train", "bake", "benchmark"):
        assert any(line.startswith(name) for line in lines), name
    assert len([line for line in lines if line.startswith("train ")]) >= 10


def test_memory_stays_below_3_gb(demo):
    assert demo.peak_bytes < 3e9


def test_nothing_published_names_the_machine(demo, demo_home):
    repository = Path(demo.json["artifacts"]["upload"]) / "repository"
    texts = [p for p in repository.rglob("*") if p.suffix in {".md", ".json", ".jsonl", ".html", ".yaml", ".jinja", ""}]
    assert len(texts) > 10
    for path in texts:
        if path.is_file():
            assert str(demo_home) not in path.read_text(encoding="utf-8"), path


def _answers(demo, system, task):
    folder = Path(demo.json["artifacts"][f"benchmark.cell[{system}:{task}]"])
    lines = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


def _contrast(demo, name, task):
    contrasts = demo.json["steps"]["benchmark"]["facts"]["contrasts"]
    return next(c for c in contrasts if (c["contrast"], c["task"]) == (name, task))


@pytest.mark.parametrize("task", TASKS)
def test_it_learnt(demo, task):
    """On held-out data B beats A, Holm-corrected over the three tasks; nothing was tuned on this split."""
    training = _contrast(demo, "training", task)
    assert training["difference"] > 0
    assert training["p_holm"] < 0.01


@pytest.mark.parametrize("task", TASKS)
def test_what_is_delivered_beats_the_base_in_a_file_of_the_same_type(demo, task):
    delivered = _contrast(demo, "delivered", task)
    assert (delivered["of"], delivered["against"], delivered["verdict"]) == ("C-Q8_0", "A-Q8_0", "better")


def test_ppo_raised_the_held_out_reward(demo):
    ppo = demo.json["steps"]["train"]["facts"]["metrics"]["ppo"]
    assert ppo["reward_after"]["n"] == ppo["reward_before"]["n"] >= 64
    assert ppo["reward_after"]["reward"] > ppo["reward_before"]["reward"]


def test_the_baked_file_answers_as_the_live_model(demo):
    """C-F16 agrees with B on at least 99 % of all answers, from the same token ids."""
    same = total = 0
    for task in TASKS:
        live, baked = _answers(demo, "B", task), _answers(demo, "C-F16", task)
        assert live.keys() == baked.keys() == _answers(demo, "A-Q8_0", task).keys()
        for key, answer in live.items():
            assert answer["ids_sha256"] == baked[key]["ids_sha256"]
            same += answer["predicted"] == baked[key]["predicted"]
            total += 1
    assert same / total >= 0.99, f"{same} of {total}"


def test_the_image_file_answers_as_the_live_model(demo):
    """The mmproj file gives a digit's picture the same greedy answer as transformers does."""
    gates = json.loads((Path(demo.json["artifacts"]["bake"]) / "gates.json").read_text(encoding="utf-8"))
    measured = {gate["name"]: gate["value"] for gate in gates}
    assert measured["image answer, regret of greedy tokens"] == 0


def test_status_is_read_only_and_complete(demo, demo_home):
    before = sorted(str(p) for p in (demo_home / "artifacts").rglob("*"))
    status = command("status", "--json", home=demo_home)
    assert status.code == 0
    assert {row["state"] for row in status.json["steps"].values()} == {"done"}, "a second run would make one again"
    assert sorted(str(p) for p in (demo_home / "artifacts").rglob("*")) == before


def test_every_gguf_answers_a_prompt(demo):
    """The files that are published load in llama.cpp and continue a four-class prompt."""
    import llama_cpp

    repository = Path(demo.json["artifacts"]["upload"]) / "repository"
    files = [p for p in sorted(repository.rglob("*.gguf")) if "mmproj" not in p.name]
    assert len(files) == 3
    for path in files:
        model = llama_cpp.Llama(str(path), n_ctx=512, verbose=False, seed=0)
        reply = model.create_chat_completion(
            [{"role": "user", "content": "How do I kill a stuck process?"}], max_tokens=120, temperature=0.0
        )
        text = reply["choices"][0]["message"]["content"]
        assert text.lstrip().startswith("<think-task>"), (path.name, text)
        assert "<final>" in text, (path.name, text)


def test_store_has_no_leftovers(demo, demo_home):
    store = Store(load_config(ROOT / "configs" / "demo.yaml", (), demo_home).home())
    assert [p.name for p in store.root.glob("*/*") if "." in p.name] == []
    assert list(store.root.rglob("*.tmp")) == []
