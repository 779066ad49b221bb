"""The base model: made twice, killed and resumed, copied, fetched."""

import base64
import hashlib
import json
import subprocess
import sys
import time

import pytest
import sentencepiece
from safetensors.torch import load_file

from so8t.collect import download, foundation
from so8t.collect.basemodel import pretrain, vocabulary
from so8t.collect.config import DemoBase, HubBase, LocalBase
from so8t.collect.demo.text import pretraining_chats, pretraining_text
from so8t.config import Machine
from so8t.errors import InputError, StepFailed
from so8t.models import load_base, load_tokenizer, weight_files
from so8t.progress import Progress
from tests.hub import HubServer

TINY = {"kind": "demo", "steps": 40, "batch": 2, "length": 16, "hidden": 64, "layers": 2}


class Reports:
    """Keeps what a step reports."""

    def __init__(self):
        self.done = []

    def report(self, step, done, total, message, metrics):
        self.done.append(done)


def make(config, out):
    out.mkdir(parents=True, exist_ok=True)
    reports = Reports()
    facts = foundation.run(config, {}, out, Progress("collect.base", Machine(), out.parent / "home", (reports,)))
    return facts, reports.done


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("base")
    facts, done = make(DemoBase.model_validate(TINY), out)
    assert done == list(range(1, 41))
    return out, facts


def test_layout_is_a_hub_repository(made):
    out, facts = made
    assert set(files_of(out)) == {
        "LICENSE", "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
        "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    }  # fmt: skip
    assert facts["licence"] == "mit"
    assert facts["vocab_size"] - 2011 >= 32
    tensors = {name: tensor for path in weight_files(out) for name, tensor in load_file(path).items()}
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.bfloat16"}
    assert facts["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == 2 * facts["parameters"]


def test_pretraining_learns(made):
    """An untrained model's perplexity is about its vocabulary's size."""
    assert made[1]["train_perplexity"] < 1000


def test_weights_load_as_they_were_trained(made):
    out, facts = made
    tokenizer, lines = load_tokenizer(out), pretraining_text(0)
    stream = pretrain.token_stream(tokenizer, lines, pretraining_chats(0), 0)
    assert pretrain.perplexity(load_base(out), stream, 16) == pytest.approx(facts["train_perplexity"], rel=0.01)


def test_killed_and_resumed_it_ends_in_the_same_bytes(made, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom tests.collect.test_foundation import make\n"
        "from so8t.collect.config import DemoBase\n"
        "make(DemoBase.model_validate(json.loads(Path(sys.argv[1]).read_text(encoding='utf-8'))), Path(sys.argv[2]))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "config.json"), str(out)])
    deadline = time.monotonic() + 120
    while not (out / pretrain.STATE).exists():
        assert child.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.kill()
    child.wait()
    _, done = make(DemoBase.model_validate(TINY), out)
    assert done[0] == 26
    assert files_of(out) == files_of(made[0])


def test_a_damaged_checkpoint_is_not_trusted(made, tmp_path):
    """The bytes at the end are right, not merely present."""
    short = DemoBase.model_validate({**TINY, "steps": 25})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "forget", lambda out: None)
        make(short, tmp_path)
    checkpoint = tmp_path / "pretraining-000025.safetensors"
    data = bytearray(checkpoint.read_bytes())
    data[-1] ^= 1
    checkpoint.write_bytes(data)
    _, done = make(DemoBase.model_validate(TINY), tmp_path)
    assert done[0] == 1
    assert files_of(tmp_path) == files_of(made[0])


def test_another_seed_makes_another_base(made, tmp_path):
    make(DemoBase.model_validate({**TINY, "seed": 1, "steps": 1}), tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() != (made[0] / "tokenizer.json").read_bytes()


def test_tokenizer_is_sentencepiece_to_the_id(made):
    out = made[0]
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    tokenizer = load_tokenizer(out)
    odd = [
        "",
        " ",
        "  a  b ",
        "a" * 300,
        " " * 17 + "x",
        "鬱蒼とした森\u3000全角",
        "😀👨‍👩‍👧🎌",
        "Ω≈ç√",
        "e\u0301",
        "\t\r\n\n",
        "7 8  *#",
    ]
    for text in [*pretraining_text(0), *pretraining_text(9), *odd]:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == pieces.encode(text), repr(text)


def test_japanese_is_not_spelled_in_bytes(made):
    """Every character of the text has a piece; on average a token is more than two characters of it."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(made[0] / "tokenizer.model"))
    lines = [line for line in pretraining_text(0) if not line.isascii()]
    ids = [token for line in lines for token in pieces.encode(line)]
    assert not any(pieces.is_byte(token) for token in ids)
    assert sum(map(len, lines)) / len(ids) > 2


def test_an_impossible_vocabulary_is_an_error_of_the_step():
    with pytest.raises(StepFailed, match="4000"):
        vocabulary.train_sentencepiece(["a b c"], 4000)


def test_a_local_base_is_copied_without_code_and_pickles(made, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name, data in files_of(made[0]).items():
        (source / name).write_bytes(data)
    (source / "modeling_phi3.py").write_text("raise SystemExit", encoding="utf-8")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("torn", encoding="utf-8")
    facts, _ = make(LocalBase(kind="local", path=source), tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(made[0])
    assert facts["licence"] == "mit"


def test_a_local_base_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        make(LocalBase(kind="local", path=tmp_path / "absent"), tmp_path / "out")


@pytest.fixture
def remote(made, tmp_path, monkeypatch):
    """The made base on a Hub of ours, with code and a pickle beside it."""
    with HubServer(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.001)
        repo = server.store.create("models", "lab/phi", private=False)
        lines = [{"key": "header", "value": {"summary": "files"}}]
        for name, data in {**files_of(made[0]), "modeling_phi3.py": b"x", "pytorch_model.bin": b"y"}.items():
            if name.endswith((".safetensors", ".model")):
                oid = hashlib.sha256(data).hexdigest()
                server.store.put_object(oid, data)
                lines.append({"key": "lfsFile", "value": {"path": name, "oid": oid}})
            else:
                lines.append({"key": "file", "value": {"path": name, "content": base64.b64encode(data).decode()}})
        yield server, HubBase(kind="hub", id="lab/phi", revision=server.store.commit(repo, "main", lines))


def test_a_hub_base_comes_whole_without_code_and_pickles(made, remote, tmp_path):
    _, config = remote
    facts, _ = make(config, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(made[0])
    assert (facts["licence"], facts["revision"]) == ("mit", config.revision)
    assert {"modeling_phi3.py", "pytorch_model.bin"} <= set(facts["skipped"])


def test_a_file_goes_on_where_its_answer_was_cut(made, remote, tmp_path):
    server, config = remote
    out = tmp_path / "out"
    server.cut("resolve", 1000, times=2)
    make(config, out)
    assert files_of(out) == files_of(made[0])
    assert "bytes=1000-" in [request.range for request in server.requests]


def test_what_was_fetched_is_not_fetched_again(remote, tmp_path):
    server, config = remote
    make(config, tmp_path / "out")
    fetched = server.count("resolve")
    make(config, tmp_path / "out")
    assert server.count("resolve") == fetched


def test_an_absent_revision_or_repository_is_the_users_to_mend(remote, tmp_path):
    for config in (
        HubBase(kind="hub", id="lab/phi", revision="0" * 40),
        HubBase(kind="hub", id="lab/no", revision="0" * 40),
    ):
        with pytest.raises(InputError, match="cannot be read"):
            make(config, tmp_path / "out")


def test_a_hub_that_does_not_answer_is_a_failure_not_a_usage_error(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StepFailed, match="did not answer"):
        make(remote[1], tmp_path / "out")
