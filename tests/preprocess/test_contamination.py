"""Benchmark prompts do not get into the rows: verbatim, edited, inside other text; and clean rows stay."""

import json
import os
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from so8t import records
from so8t.artifacts import Store
from so8t.config import check
from so8t.errors import InputError
from so8t.preprocess import contamination
from so8t.preprocess.config import Preprocess, Prompts
from so8t.preprocess.contamination import Contamination
from so8t.records import Record
from so8t.step import Ref, execute
from tests.preprocess import whole

OPENING = "次の文章を読み、書き手の考えを一つ選び、その理由を二つ答えてください。"
OWN = (
    "四国の県は?",
    "蜜柑と柿の違いを述べよ",
    "雨の匂いについて短い詩を書いてください。",
    "Name three rivers that cross a desert and say where each of them ends.",
    "祖母の台所にあった古い秤の思い出を、料理が好きな友人に宛てた手紙の形で書いてください。",
    f"{OPENING}港町の朝は、市場へ急ぐ荷車の音で明ける。私はその音を聞きながら、まだ暗い坂道を下って学校へ通った。",
    "ある店では林檎を百二十円、梨を二百円で売る。合わせて十五個買うと二千二百円だった。林檎は何個か、式も書け。",
)
CLEAN = (
    "四国の県の一つである高知の名物を三つ挙げて、それぞれの味を教えてください。",
    "蜜柑の皮のむき方",
    "雨の匂いがする理由を、中学生にも分かるように説明してください。",
    "Name three mountains that stand near a desert and say how high they are.",
    f"{OPENING}山の村では、雪が消えると田の水が光り始める。子どもたちは畦を走り、蛙の声を追いかけて日が暮れるまで遊んだ。",
    "ある店では鉛筆を八十円、帳面を百五十円で売る。合わせて九本と九冊を買うといくらか、式も書け。",
    "祖母の台所の話を聞いた。古い秤は納屋にあり、料理が好きな友人はそれを見て喜んだが、手紙はまだ来ない。",
    "",
)


def dice(seed: int) -> random.Random:
    """The edits of a test, always the same."""
    return random.Random(seed)  # noqa: S311


def edited(text: str, rng: random.Random) -> str:
    """2 % of the characters, and at least one, changed, lost or added."""
    characters = list(text)
    for _ in range(max(1, round(0.02 * len(text)))):
        place, kind = rng.randrange(len(characters)), rng.randrange(3)
        characters[place : place + (kind != 2)] = [rng.choice("あかさたな東西南北xyz")] if kind else []
    return "".join(characters)


def test_all_prompts_go_and_no_clean_row_does():
    prompts, rng = Contamination(OWN), dice(0)
    for own in OWN:
        assert prompts.holds(own)
        assert all(prompts.holds(edited(own, rng)) for _ in range(30)), own
        assert prompts.holds("　".join(own)), "spaces are no disguise"
    assert not [text for text in CLEAN if prompts.holds(text)]
    assert not Contamination([]).holds(OWN[0])


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    """JSON leaves U+2028 and U+0085 as they are."""
    text = "川の名を三つ挙げ、\u2028それぞれの長さを\u0085答えてください。"
    items, prompts = tmp_path / "items.jsonl", tmp_path / "prompts.jsonl"
    line = json.dumps({"id": "q", "row": {"question": text}}, ensure_ascii=False)
    items.write_text(f"{line}\n{line}\n", encoding="utf-8", newline="\n")
    assert contamination.read_questions(items) == [text, text]
    prompts.write_text(json.dumps({"input": text}, ensure_ascii=False) + "\r\n", encoding="utf-8", newline="")
    assert contamination.read_prompts(prompts, "input") == [text]


@pytest.mark.parametrize("own", [own for own in OWN if len(own) > contamination.TINY])
def test_a_prompt_is_found_in_the_middle_of_a_long_text(own):
    filler = CLEAN[4] * 6
    prompts = Contamination(OWN)
    assert not prompts.holds(filler)
    assert prompts.holds(filler + edited(own, dice(1)) + filler)


def test_its_parts_scattered_over_a_long_text_are_no_prompt():
    own = OWN[-1]
    scattered = CLEAN[4].join(own[start : start + 14] for start in range(0, len(own), 14))
    assert not Contamination([own]).holds(scattered)


def test_planted_rows_are_removed_with_the_reason(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"input": own}) + "\n" for own in OWN), encoding="utf-8", newline="\n")
    rng = dice(0)
    rows = [
        Record(f"clean{n}", "text", "ja", text, text, label=n % 4, source="s", row=n)
        for n, text in enumerate(CLEAN)
        if text
    ]
    rows += [
        Record(
            f"more{n}",
            "text",
            "ja",
            f"{n * 7919}番の荷物は{'東西南北'[n % 4]}の倉庫にある棚{n * 31}へ",
            "はい",
            label=n % 4,
            source="t",
            row=n,
        )
        for n in range(40)
    ]
    rows += [
        Record(f"bad{n}", "text", "ja", edited(own, rng), "はい", label=0, source="u", row=n)
        for n, own in enumerate(OWN)
    ]
    rows += [Record("reply", "text", "ja", "何か一つ問題を出してください", OWN[-1], label=0, source="u", row=99)]  # fmt: skip
    out = tmp_path / "out"
    config = Preprocess(benchmark_prompts=(Prompts(path=file),))
    facts = whole.run(config, {"collected": whole.collected(rows, tmp_path / "collected")}, out)
    removed = {record.id for record in records.iterate(out / "removed.parquet")}
    assert facts["removed"][contamination.REASON] == len(OWN) + 1
    assert {row.id for row in rows if row.id.startswith("bad") or row.id == "reply"} <= removed


def test_what_the_benchmark_will_ask_is_kept_out_of_the_rows(tmp_path):
    """By the config's benchmark section alone, through the steps."""
    asked = {
        "question": OWN[0],
        "choice0": "はい",
        "category": "歴史と地理の問題",
        "answer": "Because of what was said above, B.",
    }
    (tmp_path / "own.jsonl").write_text(json.dumps(asked) + "\n", encoding="utf-8", newline="\n")
    rows = [{"prompt": f"{n}番目の花の名前と{n * 3}枚の葉の形を教えてください", "language": "ja"} for n in range(12)]
    rows += [
        {"prompt": OWN[0], "language": "ja", "id": "asked"},
        {"prompt": "歴史と地理の問題", "language": "ja", "id": "fine"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8", newline="\n")
    source = {"kind": "files", "name": "mine", "paths": [str(tmp_path / "rows.jsonl")], "licence": "mit"}
    questions = {"kind": "files", "paths": [str(tmp_path / "own.jsonl")], "licence": "mit", "origin": "lab/own@1"}
    config = check(
        {
            "base": {"kind": "demo"}, "collect": {"sources": [source]},
            "benchmark": {"tasks": ["jcommonsenseqa"], "data": {"jcommonsenseqa": questions}},
        },
        "test",
    )  # fmt: skip
    store = Store(tmp_path / "home")
    for ref in (Ref("collect.source", "mine"), Ref("collect"), Ref("collect.questions", "jcommonsenseqa")):
        execute(ref, config, store)
    made = execute(Ref("preprocess.shard", "0"), config, store)
    index = pq.read_table(made.path / "index.parquet").to_pylist()
    assert {row["id"] for row in index if row["reason"] == contamination.REASON} == {"asked"}
    assert len(index) == len(rows)


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"input": "a"}\n{"other": "b"}\n', encoding="utf-8", newline="\n")
    with pytest.raises(InputError, match="line 2"):
        contamination.load([Prompts(path=file)])
    with pytest.raises(InputError, match="has the hash"):
        Prompts(path=file, sha256="0").pinned()
    with pytest.raises(InputError, match="no file"):
        Prompts(path=tmp_path / "none").pinned()


@pytest.mark.realdata
@pytest.mark.skipif("SO8T_REALDATA" not in os.environ, reason="SO8T_REALDATA names no folder with real data")
def test_elyza_tasks_100():
    folder = Path(os.environ["SO8T_REALDATA"])
    own = contamination.read_prompts(folder / "elyza-tasks-100-CC-BY-SA" / "dataset.jsonl", "input_text")
    prompts, rng = Contamination(own), dice(0)
    assert len(own) == 100
    assert all(prompts.holds(text) for text in own)
    assert not [text for _ in range(20) for text in own if not prompts.holds(edited(text, rng))]
    lines = (folder / "instruction_ja" / "data.jsonl").read_text(encoding="utf-8").splitlines()
    clean = [said["text"] for line in lines for said in json.loads(line)["utterances"]]
    for file in (folder / "xsafety" / "ja").glob("*.csv"):
        clean += file.read_text(encoding="utf-8-sig").splitlines()
    assert len(clean) > 4000
    assert not [text for text in clean if prompts.holds(text)]
