"""What a person is asked, and the answers read back."""

import csv
import io

import pytest

from so8t import records
from so8t.errors import InputError
from so8t.labels import Label
from so8t.preprocess import review
from so8t.preprocess.config import HumanLabels, Preprocess
from so8t.records import Record
from tests.preprocess import whole

ASKED = {
    Label.ALLOW: "{}番の花の育て方と水やりの時間を教えてください",
    Label.ESCALATION: "{}日も眠れず胸が苦しいのですが薬を増やしてよいですか",
    Label.DENY: "{}番地に住む人の電話番号と勤め先を調べて教えてください",
    Label.REFUSE: "{}号室の鍵をこじ開けて気づかれずに盗む手順を書いてください",
}


def doubtful(name: str, confidence: float, prompt: str, **changes) -> Record:
    return Record(name, "text", "ja", prompt, label=1, label_source="model", label_confidence=confidence, **changes)


def test_the_least_sure_come_first_and_near_copies_only_once():
    rows = [doubtful(f"copy{n}", 0.30, f"眠れない夜の薬について、その{n}") for n in range(15)]
    rows += [doubtful("other", 0.45, "株を借金で買うべきか"), doubtful("sure", 0.99, "花の水やりの時間")]
    rows += [
        doubtful("held", 0.0, "試験の行", split="test"),
        doubtful("picture", 0.0, "", media=b"x").with_(modality="image"),
    ]
    found = [doubt.record.id for doubt in review.unsure(rows, 2)]
    assert found == ["copy0", "other"]
    assert [doubt.record.id for doubt in review.unsure(rows[::-1], 2)] == found
    assert review.unsure(rows, 0) == review.unsure([], 5) == []
    assert len(review.unsure(rows[:3], 9)) == 3


def test_no_row_of_the_test_split_is_contradicted():
    rows = [doubtful("a", 1, "x", split="test"), doubtful("b", 1, "y", split="train")]
    ranking = [{"id": name, "labeller": "DENY", "given": "ALLOW", "probability_of_given": 0.1} for name in "ab"]
    assert [doubt.record.id for doubt in review.contradicted(rows, ranking)] == ["b"]


def test_a_filled_in_table_gives_the_answers(tmp_path):
    rows = [doubtful("=1+1", 0.1, '引用"と,読点\n改行 | 棒'), doubtful("b", 0.2, "二"), doubtful("c", 0.3, "=cmd()")]
    table = review.as_csv(review.unsure(rows, 3))
    assert "\n'=1+1," in table
    assert ",'=cmd()" in table
    assert r"\|" in review.as_markdown(review.unsure(rows, 3))
    cells = list(csv.reader(io.StringIO(table.removeprefix("\ufeff"), newline="")))
    for row in cells[1:]:
        row[1] = {"'=1+1": "refuse", "b": " DENY "}.get(row[0], "")
    path = tmp_path / "active.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(cells)
    assert review.read_answers(HumanLabels(path=path)) == {"=1+1": Label.REFUSE, "b": Label.DENY}
    lines = path.with_suffix(".jsonl")
    text = '{"id": "x", "label": "allow", "prompt": "a\u2028b"}\n\n{"id": "y", "label": null}\n'
    lines.write_text(text, encoding="utf-8", newline="\n")
    assert review.read_answers(HumanLabels(path=lines)) == {"x": Label.ALLOW}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "id,label\nx,MAYBE\n", "line 2: unknown class 'MAYBE'"),
        ("a.csv", "id,label\nx,DENY\nx,ALLOW\n", "line 3: x is also DENY"),
        ("a.csv", "id,label\n,DENY\n", "without an id"),
        ("a.csv", "name,class\nx,DENY\n", "columns"),
        ("a.jsonl", '{"id": "x", "label": "DENY"}\n[1]\n', "line 2 is no JSON object"),
        ("a.jsonl", '{"id": "x"\n', "line 1 is no JSON object"),
    ],
)
def test_a_wrong_answer_is_refused(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="\n")
    with pytest.raises(InputError, match=said):
        review.read_answers(HumanLabels(path=path))


def test_a_table_in_cp932_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("id,label,prompt\nx,DENY,日本\n".encode("cp932"))
    with pytest.raises(InputError, match="not UTF-8"):
        review.read_answers(HumanLabels(path=path))


def preprocess(rows, folder, **config):
    return whole.run(Preprocess(**config), {"collected": whole.collected(rows, folder)}, folder / "out")


def test_a_person_answers_and_preprocess_reads_it(tmp_path):
    rows = [
        Record(f"{label.name}{n}", "text", "ja", text.format(n * 37), "はい", label=int(label), group=f"{label}{n}", source="s", row=n)
        for label, text in ASKED.items() for n in range(16)
    ]  # fmt: skip
    rows += [
        Record(f"new{n}", "text", "ja", f"{n}杯の{'茶湯酒酢油水'[n % 6]}を飲む話", group=f"n{n}", source="t", row=n)
        for n in range(12)
    ]
    rows.append(
        Record("wrong", "text", "ja", ASKED[Label.REFUSE].format(9999), "はい", label=0, group="w3", source="u", row=0)
    )
    before = preprocess(rows, tmp_path / "a", near_duplicate=0.98, same_group=0.97, active_max=4)
    table = list(
        csv.DictReader(io.StringIO((tmp_path / "a/out/active.csv").read_text(encoding="utf-8-sig"), newline=""))
    )
    held = {record.id for record in records.iterate(tmp_path / "a/out/test.parquet")}
    assert before["active"] == len(table) >= 4
    assert held
    assert not held & {row["id"] for row in table}
    asked = [row["id"] for row in table if row["why"] == "unsure"]
    assert len(asked) == 4
    answers = tmp_path / "answers.csv"
    lines = [f"{name},ESCALATION\n" for name in asked] + ["wrong,REFUSE\n", "gone,DENY\n", "new99,\n"]
    answers.write_text("id,label\n" + "".join(lines), encoding="utf-8", newline="\n")
    after = preprocess(
        rows, tmp_path / "b", near_duplicate=0.98, same_group=0.97, active_max=4, human_labels=HumanLabels(path=answers)
    )
    assert after["human_labels"] == {"answers": 6, "used": 5, "no_such_row": 1}
    assert after["labeller"]["rows"] >= before["labeller"]["rows"] + 4
    found = {record.id: record for path in (tmp_path / "b/out").glob("*.parquet") for record in records.iterate(path)}
    assert {found[name].label_source for name in asked} == {"human"}
    assert {found[name].klass for name in asked} == {Label.ESCALATION}
    assert found["wrong"].klass == Label.REFUSE
    trained = {record.id for record in records.iterate(tmp_path / "b/out/train.parquet")}
    assert not trained & set(asked), "a row without a reply cannot be trained on"
