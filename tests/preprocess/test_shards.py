"""Shard by shard: the same files whatever the shards' size and wherever they are made."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from so8t import durable
from so8t.errors import InputError
from so8t.labels import Label
from so8t.preprocess import order, plots
from so8t.preprocess.config import Preprocess, Prompts
from so8t.preprocess.language import identify
from so8t.records import Record
from tests.preprocess import whole

TOPICS = ("卵の焼き方", "薬の飲み合わせ", "隣人の住所", "爆発物の作り方")
WAYS = "駅 山 川 森 海 町 村 島 橋 店".split()  # noqa: SIM905
BENCHMARK = "次の文章を読み、筆者の考えを三つの観点から要約してください。"


def rows():
    """Four classes, some unlabelled, near copies far apart, an English and a French text, and what must be masked."""
    made = []
    for n in range(200):
        text = (
            f"{WAYS[n % 10]}の{n * 7919 % 1000}番目の{WAYS[n * 3 % 10]}で{TOPICS[n % 4]}を{WAYS[n // 20]}の人に尋ねる話"
        )
        made.append(
            Record(f"r{n:03d}", "text", "ja", text, label=n % 4 if n % 3 else -1, group=f"g{n}" if n % 9 == 0 else "")
        )
    made += [
        row.with_(id=f"copy{n}", prompt=row.prompt + ("。", "と聞く")[n % 2], group="")
        for n, row in enumerate(made[:20])
    ]
    other = {
        "en": ("en", "How do I fold a paper crane in five steps?"),
        "fr": ("en", "Comment préparer une soupe de légumes pour six personnes ?"),
        "bad": ("ja", f"{BENCHMARK} 連絡は090-1234-5678まで"),
    }
    made += [Record(name, "text", language, text, label=int(Label.ALLOW)) for name, (language, text) in other.items()]
    return [row.with_(source="s", file="f", row=place) for place, row in enumerate(made)]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "own.jsonl"
    path.write_text(json.dumps({"input": BENCHMARK}) + "\n", encoding="utf-8", newline="\n")
    return (Prompts(path=path),)


@pytest.fixture(scope="module")
def made(tmp_path_factory, prompts):
    """The files' bytes by name for shards of 50 rows and for one shard; the folder of the former."""
    folder = tmp_path_factory.mktemp("sizes")
    source = whole.collected(rows(), folder / "collected")
    found = []
    for size in (50, 20_000):
        config = Preprocess(
            shard_rows=size, languages=("ja", "en"), benchmark_prompts=prompts, same_group=0.8, near_duplicate=0.85
        )
        facts = whole.run(config, {"collected": source}, folder / f"{size}")
        found.append((facts, {path.name: path.read_bytes() for path in sorted((folder / f"{size}").iterdir())}))
    return found, folder / "50"


def test_the_size_of_a_shard_changes_no_byte(made):
    (small, large), folder = made
    assert len(list(folder.with_name("50-shards").iterdir())) == 5
    assert small == large
    assert small[0]["removed"]["exact duplicate"] >= 8
    assert small[0]["removed"]["near duplicate"] >= 3


def test_the_language_is_recorded_and_others_go_where_the_config_asks(made):
    card = durable.read_json(made[1] / "data_card.json")
    assert card["removed"]["in a language that is not asked for"] == 1
    removed = pq.read_table(made[1] / "removed.parquet").to_pylist()
    assert [row["written_in"] for row in removed if row["id"] == "fr"] == ["fr"]
    kept = [
        row
        for name in ("train", "validation", "test", "labelled")
        for row in pq.read_table(made[1] / f"{name}.parquet").to_pylist()
    ]
    assert {row["id"]: row["written_in"] for row in kept}["en"] == "en"
    assert {name for counts in card["language"].values() for name in counts} == {"ja", "en"}


def test_what_was_removed_is_masked_too(made):
    removed = {row["id"]: row for row in pq.read_table(made[1] / "removed.parquet").to_pylist()}
    assert removed["bad"]["reason"] == "benchmark prompt"
    assert "[PHONE]" in removed["bad"]["prompt"]
    assert "1234" not in str(removed["bad"])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("雨の日には傘を持つ", "ja"), ("東京都庁舎展望室", "ja"), ("How do I make tea?", "en"), ("ＨＯＷ ｄｏ Ｉ make tea?", "en"),
        ("今天天气很好，我们去公园", "zh"), ("안녕하세요 반갑습니다", "ko"), ("12 + 34 = ?", ""), ("\ud800", ""), ("", ""),
    ],
)  # fmt: skip
def test_languages(text, code):
    assert identify(text) == code


def test_the_canonical_order_is_that_of_provenance(tmp_path):
    given = [
        Record(f"{n % 3}", "text", "ja", "x", source=source, file=file, row=n % 2)
        for n, (source, file) in enumerate(
            [("b", "é"), ("a", "z"), ("a", "ｚ"), ("あ", ""), ("a", "z"), ("B", "𝒳"), ("a", "z")]
        )
    ]
    whole.collected(given, tmp_path)
    path = tmp_path / "records.parquet"
    places = order.canonical(path)
    ordered = order.Reader(path).take(places)
    assert ordered == sorted(given, key=lambda r: (r.source, r.file, r.row, r.id))
    assert [order.shards_of(path, size) for size in (1, 3, 7, 8)] == [7, 3, 1, 1]
    assert np.concatenate([order.shard_of(path, n, 3) for n in range(3)]).tolist() == places.tolist()
    (tmp_path / "html.parquet").write_bytes(b"<html>")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        order.Reader(tmp_path / "html.parquet")


def test_the_picture_of_the_card_has_the_same_bytes_and_only_ascii(made):
    card = durable.read_json(made[1] / "data_card.json")
    assert plots.draw(card) == (made[1] / "data_card.png").read_bytes()
    assert b"matplotlib" not in plots.draw({**card, "licence": {f"licence {n} 名": n for n in range(30)}})
