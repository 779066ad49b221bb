import pytest

from so8t.benchmark.config import Benchmark
from so8t.benchmark.prompts import Question, Tokenizer, Unanswerable, choice_ids, original_context, probe_question
from so8t.benchmark.task import Choice, Prefix, load_task, prefixes, rows_of
from so8t.errors import InputError
from so8t.models import load_tokenizer, prompt_ids, reply_ids
from so8t.thinking import ADDED_TOKENS
from tests.benchmark.conftest import text_row

TEXTS = (
    "明日の天気は？", "How are you?", "  two  spaces ", "line\nfeed\n", "絵文字🙂と記号＠", "", "a",
    "<think-task>x</think-task><think-safety><|deny|> no</think-safety>", "<final>7</final>", "\t tab", "<|end|>\n<|user|>",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(world):
    return Tokenizer(world.train.path / "tokenizer")


def test_ids_equal_those_of_transformers(world, tokenizer):
    reference = load_tokenizer(world.train.path / "tokenizer")
    for text in (*TEXTS, *ADDED_TOKENS, *(f"{tag}x" for tag in ADDED_TOKENS)):
        assert reply_ids(tokenizer, text) == reply_ids(reference, text), text
        assert prompt_ids(tokenizer, text) == prompt_ids(reference, text), text
    assert prompt_ids(tokenizer, "digit?", 16) == prompt_ids(reference, "digit?", 16)


@pytest.mark.parametrize("name", Benchmark().tasks)
def test_every_shipped_task_loads_and_its_choices_are_one_token_each(name, data, tokenizer):
    task = load_task(name)
    assert task.name == name
    for prefix in prefixes(task, data.path).values():
        assert prefix.text.endswith(task.prefix_until)
        assert [len(ids) for ids in choice_ids(task, prefix, tokenizer)] == [1] * len(task.choices)


def test_prefix_names_no_class_and_comes_from_train_only(data):
    found = prefixes(load_task("safety"), data.path)
    assert {language: prefix.text for language, prefix in found.items()} == {
        language: f"<think-task>classify {language}</think-task><think-safety>" for language in ("ja", "en")
    }
    assert {prefix.share for prefix in found.values()} == {1.0}


def test_two_rows_that_differ_only_in_their_label_are_asked_the_same(tokenizer, data):
    task, row = load_task("safety"), text_row(0, "test")
    head = prefixes(task, data.path)["ja"]
    one, other = (
        probe_question(task, row.with_(label=label, response=""), head, tokenizer, 16, 512) for label in (0, 3)
    )
    assert isinstance(one, Question)
    assert one == other


def test_items_are_the_unflagged_rows_of_the_test_split(data):
    assert [row.split for row in rows_of(load_task("safety"), data.path)] == ["test"] * 20
    assert len(rows_of(load_task("digits"), data.path)) == 8


def test_an_item_that_cannot_be_asked_says_why(tokenizer, data):
    task = load_task("digits")
    row = rows_of(task, data.path)[0]
    head = prefixes(task, data.path)["en"]
    for changed, prefix, context, why in (
        (row, None, 512, "no reply in 'en'"),
        (row.with_(answer="x"), head, 512, "none of the choices"),
        (row.with_(image=b""), head, 512, "no image"),
        (row, head, 20, "the context holds 20"),
    ):
        made = probe_question(task, changed, prefix, tokenizer, 16, context)
        assert isinstance(made, Unanswerable)
        assert why in made.why


def test_a_choice_that_melts_into_its_prefix_is_refused(tokenizer):
    task = load_task("digits").model_copy(update={"choices": (Choice(name="n", text="ing"),)})
    with pytest.raises(InputError, match="not a continuation"):
        choice_ids(task, Prefix("the morn", 1.0), tokenizer)


def test_ids_digest_covers_everything(tokenizer, data):
    task = load_task("digits")
    one, other = rows_of(task, data.path)[:2]
    head = prefixes(task, data.path)["en"]
    made = [
        probe_question(task, row, head, tokenizer, 16, 512)
        for row in (one, one.with_(image=other.image), one.with_(prompt="!"))
    ]
    made += [made[0].free()]
    assert len({q.ids_sha256 for q in made}) == 4


def test_context_is_the_original_one(world):
    assert original_context(world.train.path / "tokenizer") == 512
