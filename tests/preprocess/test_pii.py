"""Personal data: what is masked, and what only looks like it. All of it is made up."""

import json

import pyarrow.parquet as pq
import pytest

from so8t.artifacts import Store
from so8t.config import check
from so8t.labels import LABEL_NAMES
from so8t.preprocess.pii import fold, luhn, mask, my_number_check
from so8t.progress import JsonLines, PlainLines
from so8t.step import Ref, execute
from tests.preprocess.personal import HARMLESS, PERSONAL, raw, secrets, wanted

FOUND = [
    ("電話は090-1234-5678です", "電話は[PHONE]です"),
    ("電話は０９０ー１２３４ー５６７８です", "電話は[PHONE]です"),
    ("連絡先03(1234)5678まで", "連絡先[PHONE]まで"),
    ("〇九〇-一二三四-五六七八に電話", "[PHONE]に電話"),
    ("call +81 90 1234 5678 now", "call [PHONE] now"),
    ("番号 0312345678 へ", "番号 [PHONE] へ"),
    ("マイナンバーは123456789018", "マイナンバーは[MY_NUMBER]"),
    ("番号1234-5678-9018を控えた", "番号[MY_NUMBER]を控えた"),
    ("個人番号：１２３４　５６７８　９０１８", "個人番号：[MY_NUMBER]"),
    ("taro@example.jpへ", "[EMAIL]へ"),
    ("ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍへ", "[EMAIL]へ"),
    ("mail a.b+c@mail.example.org.", "mail [EMAIL]."),
    ("ask alice (at) example (dot) com", "ask [EMAIL]"),
    ("card 4111 1111 1111 1111 ok", "card [CARD] ok"),
    ("card 378282246310005 ok", "card [CARD] ok"),
    ("〒123-0000に送る", "[POSTCODE]に送る"),
    ("東京都見本区架空町1-2-3に住む", "[ADDRESS]に住む"),
    ("大阪府見本市中央四丁目五番六号です", "[ADDRESS]です"),
    ("at 12 Sample Street today", "at [STREET] today"),
    ("口座番号は1234567です", "口座番号は[ACCOUNT]です"),
    ("server 192.168.10.20 is down", "server [IP] is down"),
    ("佐藤さんに会う", "[NAME]さんに会う"),
    ("長谷川花子様へ", "[NAME]様へ"),
    ("氏名：鈴木一郎", "氏名：[NAME]"),
    ("Dear Mr. Tanaka, hello", "Dear Mr. [NAME], hello"),
    ("my name is John Sample and", "my name is [NAME] and"),
]

KEPT = [
    "注文番号20240115-0012の件",
    "ISBN 978-4-00-000000-2の本",
    "ISSN 0028-0836の雑誌",
    "JANコード4901234567894",
    "法人番号1180301018771の会社",
    "2019-05-01 10:20:30に停止",
    "売上は123456789012円",
    "価格は1,980円から2,980円",
    "北緯35.6812、東経139.7671",
    "版は3.11.7です",
    "番号1234-5678-9012は古い版",
    "4111 1111 1111 1112 is no card",
    "店員さんと先生に聞く",
    "東京都で3つの観光地を選ぶ",
    "京都市で3日過ごす",
    "国内市場は3-5%伸びた",
    "山口県の様子",
    "森の様子を書く",
    "a@b is no address",
    "the year 2024 and 1,234,567,890 metres",
]


@pytest.mark.parametrize(("text", "masked"), FOUND)
def test_is_masked(text, masked):
    found, kinds = mask(text)
    assert found == masked
    assert sum(kinds.values()) == 1


@pytest.mark.parametrize("text", KEPT)
def test_only_looks_like_it(text):
    assert mask(text) == (text, {})


def test_the_order_of_finds_does_not_matter_and_all_go():
    text, kinds = mask("佐藤さん 090-1234-5678 taro@example.jp 4111-1111-1111-1111 〒123-0000")
    assert text == "[NAME]さん [PHONE] [EMAIL] [CARD] [POSTCODE]"
    assert not any(c.isdigit() for c in text)
    assert sum(kinds.values()) == 5


def test_folding_keeps_every_place():
    for text in ("㌔ｶﾞ①がé０９０ー１２", "一二三四五六七八九〇一", "\ufb01 x"):
        assert len(fold(text)) == len(text)


def test_check_digits():
    assert luhn("4111111111111111")
    assert not luhn("4111111111111112")
    assert my_number_check("123456789018")
    assert sum(my_number_check(f"12345678901{d}") for d in range(10)) == 1


def test_of_a_second_list_nearly_all_forms_go_and_nearly_nothing_else_does():
    """The bars: at most 2 of 30 missed, at most 1 of 20 masked wrongly."""
    missed = [text for text in PERSONAL if mask(raw(text))[0] != wanted(text)]
    wrong = [text for text in HARMLESS if mask(text)[0] != text]
    assert (len(PERSONAL), len(HARMLESS)) >= (30, 20)
    assert len(missed) <= 2, missed
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize("text", PERSONAL)
def test_nothing_can_be_read_back(text):
    """Not one digit of a number and no part of an address or a name is left, however it was written."""
    around = fold(wanted(text))
    left = fold(mask(raw(text))[0])
    assert sum(c.isdigit() for c in left) <= sum(c.isdigit() for c in around)
    for secret in secrets(text):
        parts = [part for part in fold(secret).replace("@", ".").split(".") if len(part) > 2]
        assert not [part for part in parts if part in left]


def test_nothing_personal_is_in_any_file_or_report(tmp_path, capsys):
    """A real collect and preprocess of planted rows; raw data lie in collect's rows and nowhere else."""
    rows = [
        {"prompt": f"{n}番目の相談です。{raw(text)}。どうすればよいですか。", "response": f"{raw(text)} を受け付けました。", "label": LABEL_NAMES[n % 4], "language": "ja"}
        for n, text in enumerate(PERSONAL * 4)
    ]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")
    home = tmp_path / "home"
    source = {"kind": "files", "name": "planted", "paths": [str(file)], "licence": "mit"}
    config = check({"base": {"kind": "demo"}, "machine": {"home": str(home)}, "collect": {"sources": [source]}}, "t")
    (home / "logs").mkdir(parents=True)
    sinks = (PlainLines(), JsonLines(home / "logs" / "progress.jsonl"))
    done = [execute(ref, config, Store(home), sinks) for ref in (Ref("collect.source", "planted"), Ref("collect"), Ref("preprocess.shard", "0"), Ref("preprocess"))]  # fmt: skip
    said = "".join(capsys.readouterr())
    files = [path for path in home.rglob("*") if path.is_file()]
    texts = {
        str(path): path.read_text(encoding="utf-8", errors="ignore") for path in files if path.suffix != ".parquet"
    }
    for path in done[-1].path.glob("*.parquet"):
        texts[str(path)] = "\n".join(str(row) for row in pq.read_table(path).to_pylist())
    assert sum("[PHONE]" in text for text in texts.values()) >= 1
    found = {
        (name, secret)
        for name, text in {**texts, "said": said}.items()
        for pair in PERSONAL
        for secret in secrets(pair)
        if len(secret) > 3 and (secret in text or fold(secret) in text)
    }
    assert not found
