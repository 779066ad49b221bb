"""Personal data: what is masked, and what only looks like it. All of it is made up."""

import pytest

from so8t.preprocess.pii import fold, luhn, mask, my_number_check

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
