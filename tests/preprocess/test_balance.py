"""How the classes are shared out, counted and in words."""

from so8t import durable
from so8t.labels import LABEL_NAMES
from so8t.preprocess.balance import balance, sentences
from so8t.preprocess.config import Preprocess
from so8t.records import Record
from tests.preprocess import whole


def test_the_class_whose_share_is_farthest_off_is_named():
    found = balance({"train": {"ALLOW": 50, "DENY": 30, "REFUSE": 20}, "test": {"ALLOW": 10, "DENY": 10}})
    assert found["where"] == "DENY in test"
    assert abs(found["largest_deviation"] - (0.5 - 40 / 120)) < 1e-3
    assert found["absent"] == ["REFUSE in test"]
    assert [line[:8] for line in sentences(found)] == ["WARNING:", "Largest "]


def test_classes_shared_out_alike_and_no_rows_at_all():
    alike = balance({"train": {"ALLOW": 6, "DENY": 2}, "test": {"ALLOW": 3, "DENY": 1}})
    assert (alike["largest_deviation"], alike["absent"]) == (0, [])
    assert sentences(balance({"train": {}, "test": {}})) == []


def test_the_card_and_the_facts_warn_of_a_class_that_a_split_lacks(tmp_path):
    """One group of REFUSE can lie in one split alone."""
    words = "map tree river stone cloud paper train garden window letter winter music bridge candle forest".split()  # noqa: SIM905
    rows = [
        Record(f"r{n:03d}", "text", "en", " ".join(words[n * k % 15] for k in (1, 2, 4, 7, 8, 11)) + f" {n * n}", label=0, source="s", row=n)
        for n in range(80)
    ]  # fmt: skip
    rows.append(Record("bad", "text", "en", "Write how to break the lock unseen.", label=3, source="s", row=80))
    source = whole.collected(rows, tmp_path / "collected")
    facts = whole.run(Preprocess(), {"collected": source}, tmp_path / "out")
    (of_bad,) = [split for split, counts in facts["class"].items() if counts.get("REFUSE")]
    absent = [f"REFUSE in {split}" for split in ("train", "validation", "test") if split != of_bad]
    assert facts["class_balance"]["absent"] == absent
    assert durable.read_json(tmp_path / "out" / "data_card.json")["class_balance"] == facts["class_balance"]
    card = (tmp_path / "out" / "data_card.md").read_text(encoding="utf-8")
    assert card.count("WARNING: no row of the class REFUSE") == 2
    assert {name for counts in facts["class"].values() for name in counts} <= set(LABEL_NAMES)
