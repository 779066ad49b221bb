"""Labels: one that is missing or unknown is an error, never ALLOW."""

import json

import pytest

from so8t.errors import InputError
from so8t.four_class.config import Data, FourClass
from so8t.four_class.rows import load
from so8t.labels import Label

NAMES = ("allow", "ESCALATION", 2, "Refuse")


@pytest.fixture
def data(tmp_path):
    def write(train, validation=None, **more):
        for name, rows in (("train", train), ("val", validation or lines(NAMES, "held out"))):
            text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        return Data(train_data=(tmp_path / "train.jsonl",), val_data=(tmp_path / "val.jsonl",), **more)

    return write


def lines(labels, word):
    return [{"prompt": f"{word} {i}", "label": label} for i, label in enumerate(labels)]


def test_names_and_numbers(data):
    rows = load(data(lines(NAMES, "learnt")), {})
    assert [row.label for row in rows.train] == list(Label)
    assert rows.warnings == []


@pytest.mark.parametrize("label", [None, "", "SAFE", 4, -1, True, 1.0, ["ALLOW"]])
def test_a_bad_label_is_an_error(data, label):
    with pytest.raises(InputError, match=r"train\.jsonl:5 has the label"):
        load(data([*lines(NAMES, "learnt"), {"prompt": "x", "label": label}]), {})


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"label": 0}', '{"prompt": " ", "label": 0}'])
def test_a_bad_line_is_named(data, line):
    with pytest.raises(InputError, match=r"train\.jsonl:1 "):
        load(data([line, *lines(NAMES, "learnt")]), {})


def test_one_class_alone_teaches_nothing(data):
    with pytest.raises(InputError, match="12 ALLOW"):
        load(data(lines(["ALLOW"] * 12, "learnt"), absent_class="warn"), {})


def test_an_absent_class_is_refused_or_loud(data):
    rows = lines(["ALLOW", "DENY", "REFUSE"], "learnt")
    with pytest.raises(InputError, match="none is ESCALATION"):
        load(data(rows), {})
    assert "ESCALATION: it will never be recognised" in load(data(rows, absent_class="warn"), {}).warnings[0]


def test_a_class_that_is_not_validated_is_loud(data):
    found = load(data(lines(NAMES, "learnt"), lines(["ALLOW", "DENY"], "held out")), {}).warnings
    assert [text.split()[5] for text in found] == ["ESCALATION:", "REFUSE:"]


def test_a_row_that_is_learnt_is_not_held_out(data):
    with pytest.raises(InputError, match=r"val\.jsonl:1 is train\.jsonl:1"):
        load(data(lines(NAMES, "same"), lines(NAMES, "same")), {})


def test_the_files_content_is_in_the_key(data):
    section = FourClass(data=data(lines(NAMES, "learnt")))
    before = section.pinned()
    assert before == section.pinned()
    data(lines(NAMES, "other"))
    assert section.pinned().data.sha256 != before.data.sha256
    with pytest.raises(InputError, match="has the hashes"):
        before.pinned()


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no file"):
        Data(train_data=(tmp_path / "none.jsonl",), val_data=(tmp_path / "none.jsonl",)).pinned()
