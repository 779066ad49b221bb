"""Editions of one work: markup is no difference, and real editions are found."""

import json
import os
from pathlib import Path

import pytest

from so8t.preprocess.aozora import without_markup
from so8t.preprocess.duplicates import find_pairs
from so8t.preprocess.normalise import compare_key

REAL = Path(os.environ.get("SO8T_REALDATA", "-")) / "aozora-pd"
RULE = "-" * 55
BODY = "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。"
MARKED = (
    f"猫\n作者\n\n{RULE}\n【テキスト中に現れる記号について】\n\n《》：ルビ\n{RULE}\n"
    "吾輩《わがはい》は｜猫《ねこ》である。［＃１字下げ］名前はまだ無い。どこで生れたか頓《とん》と見当がつかぬ。"
    "何でも薄暗いじめじめした所で泣いていた。\n\n底本：「作品集」書房\n　　　1990（平成2）年\n"
)


def test_markup_is_no_difference():
    assert compare_key(MARKED) == compare_key("猫\n作者\n" + BODY)


def test_what_is_no_markup_stays():
    for text in ("映画《羅生門》を見た。", "底本とは何か。底本：の行を書く。", BODY, "《》", "-" * 5000):
        assert without_markup(text) == text
    assert without_markup("重《おも》い荷物") == "重い荷物"


def test_editions_are_near_duplicates():
    long = BODY + "吾輩はここで始めて人間というものを見た。"
    assert [pair.jaccard > 0.6 for pair in find_pairs([MARKED, long, "別の話を書く。" * 9], 0.5, 0)] == [True]


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="SO8T_REALDATA names no folder with aozora-pd")
def test_every_real_pair_of_editions_is_found():
    files = sorted(path.name for path in (REAL / "files").iterdir())
    texts = [(REAL / "files" / name).read_bytes().decode("cp932") for name in files]
    row = {name: place for place, name in enumerate(files)}
    found = {(pair.first, pair.second): pair.jaccard for pair in find_pairs(texts, 0.5, 0)}
    pairs = json.loads((REAL / "same_work_pairs.json").read_text(encoding="utf-8"))
    near = [tuple(sorted((row[p["a"]], row[p["b"]]))) for p in pairs if p["jaccard5"] >= 0.8]
    assert len(near) >= 90
    assert not [(files[a], files[b]) for a, b in near if found.get((a, b), 0) < 0.7]
