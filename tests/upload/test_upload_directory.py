"""The repository as a folder: complete, deterministic, refused where something is wrong with it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from so8t import durable
from so8t.artifacts import hash_file
from so8t.errors import DamagedArtifact, InputError, StepFailed
from so8t.upload import card, run
from so8t.upload.card import check_round_trip
from so8t.upload.config import DirectoryTarget, Upload
from so8t.upload.modelfile import check_template, render
from so8t.upload.repository import check_entries, gather
from so8t.upload.results import eval_results
from so8t.upload.scan import known_texts, scan, scan_text
from tests.upload.made import (
    NAME,
    REVISION,
    TEMPLATE,
    gguf_bytes,
    make_inputs,
    png_bytes,
    publish,
    results,
    tensor_bytes,
)

ROOT = Path(__file__).parents[2]


def tree(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): hash_file(path) for path in sorted(root.rglob("*")) if path.is_file()}


def test_repository_is_complete_and_every_file_verified(home, inputs):
    artifact, facts = publish(home, inputs, Upload())
    root = Path(facts["repository"])
    assert root == artifact.path / "repository"
    found = tree(root)
    assert facts["files"] == facts["verified"] == len(found)
    for name in ("README.md", "LICENSE", "config.json", "tokenizer.json", "chat_template.jinja", "Modelfile", "data_card.md",
                 f"gguf/{NAME}-F16.gguf", f"gguf/{NAME}-Q8_0.gguf", f"gguf/{NAME}-mmproj-F16.gguf", "adapter/adapter.json",
                 "adapter/vision/adapter.safetensors", "vision/model.safetensors", "head/head.json", "eval/results.json",
                 "eval/report.md", "eval/forest.png", "eval/gates.json", "eval/training/history.jsonl"):  # fmt: skip
        assert name in found
    assert "eval/speed.json" not in found, "volatile files are not published"
    assert found["config.json"] == hash_file(inputs["fold"].path / "hf" / "config.json")
    sums = dict(reversed(line.split("  ")) for line in (root / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    assert sums == {name: digest for name, digest in found.items() if name != "SHA256SUMS"}


def test_same_inputs_give_the_same_bytes_elsewhere(home, inputs, tmp_path, monkeypatch):
    first, _ = publish(home, inputs, Upload())
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "another" / "home"
    there = make_inputs(other)
    bake = there["bake"]
    slower = [{**row, "memory_peak_bytes": 1, "prompt_tokens_per_s": 1.0} for row in bake.manifest.facts["files"]]
    timed = replace(bake, manifest=bake.manifest.model_copy(update={"facts": {**bake.manifest.facts, "files": slower}}))
    second, _ = publish(other, {**there, "bake": timed}, Upload())
    assert first.content == second.content
    assert tree(first.path / "repository") == tree(second.path / "repository")


def test_provenance_leads_from_every_file_to_the_sources(home, inputs):
    artifact, _ = publish(home, inputs, Upload())
    found = durable.read_json(artifact.path / "repository" / "provenance.json")
    published = set(tree(artifact.path / "repository"))
    assert set(found["files"]) == published - {
        "README.md",
        "Modelfile",
        "provenance.json",
        "provenance_samples.jsonl",
        "SHA256SUMS",
    }
    for entry in found["files"].values():
        assert entry["content"] in found["artifacts"]
    reached, waiting = set(), {found["files"][f"gguf/{NAME}-Q8_0.gguf"]["content"]}
    while waiting:
        content = waiting.pop()
        reached.add(found["artifacts"][content]["step"])
        waiting |= set(found["artifacts"][content]["inputs"].values())
    assert reached == {"bake.quantize", "bake.fold", "train", "preprocess", "collect", "collect.source", "collect.base"}
    assert sum(row["rows"] for row in found["data"]) == 8
    assert {(row["licence"], len(row["revision"])) for row in found["data"]} == {("mit", 40)}
    lines = (artifact.path / "repository" / "provenance_samples.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [row["id"] for row in samples] == [f"r{number}" for number in range(8)]
    assert {row["split"] for row in samples} == {"train", "validation", "test", "nsfw"}
    assert {(row["source"], row["revision"], row["row"]) for row in samples} == {("lab/set", REVISION, -1)}
    assert "prompt" not in samples[0]


def test_card_reads_back_as_it_was_written(home, inputs):
    artifact, _ = publish(home, inputs, Upload())
    card = ModelCard.load(artifact.path / "repository" / "README.md")
    numbers = durable.read_json(inputs["benchmark"].path / "results.json")["tasks"]["safety"]
    read = {result.metric_name: result for result in card.data.eval_results}
    assert set(read) == {f"{m} of {s}" for m in ("accuracy", "macro_f1") for s in ("C-F16", "C-Q8_0")}
    for system in ("C-F16", "C-Q8_0"):
        assert read[f"macro_f1 of {system}"].metric_value == numbers[system]["macro_f1"]
        interval = numbers[system]["accuracy_interval"]
        expected = {"n": 40, "interval_95": [interval["low"], interval["high"]]}
        assert read[f"accuracy of {system}"].metric_args == expected
    assert card.data.license == "mit"
    assert "Attribution: A. Uthor: The Set, 2020\n" in card.text
    assert "-Q8_0.gguf` | 0.00123 | 99.5 % | 1.0010 |" in card.text
    assert "-F16.gguf` | - | - | - |" in card.text
    assert "Scale a picture to 32 x 32 pixels" in card.text
    assert card.data.language == ["en", "ja"]
    assert f"{100 * numbers['A']['accuracy']:.1f} %" in card.text


@pytest.mark.parametrize(
    "source", [{"origin": "brought by lm-evaluation-harness", "contamination": "not checked"}, {"origin": "lab/q@1", "licence": "mit"}]
)  # fmt: skip
def test_questions_of_others_are_not_said_to_be_our_test_split(home, inputs, source):
    path = inputs["benchmark"].path / "results.json"
    found = durable.read_json(path)
    found["tasks"]["lm_eval.x"], found["questions"]["lm_eval.x"] = found["tasks"]["safety"], source
    read = {result.dataset_type: result for result in eval_results(found, "0" * 64)}
    theirs, ours = read["so8t-lm_eval.x"], read["so8t-safety"]
    assert (ours.dataset_split, ours.dataset_revision) == ("test", "0" * 40)
    assert (theirs.dataset_split, theirs.dataset_revision) == (None, None)
    assert theirs.dataset_name == f"lm_eval.x: {source['origin']}"
    facts = replace(run.card_facts(Upload(), inputs, [], [], "adapter", {"model": "", "gguf": "a/b"}), results=found)
    text = card.card(Upload(), facts)
    assert text.count("The held-out test split, used for nothing else") == 1
    assert f"Questions of others ({source['origin']})" in text


def test_lost_results_are_noticed():
    """The client's index drops results that differ in arguments of the data set: such a card must not pass."""
    wanted = ModelCardData(license="mit", model_name="x", eval_results=eval_results(results(), "0" * 64))
    text = "---\nlicense: mit\nmodel-index:\n- name: x\n  results: []\n---\n"
    with pytest.raises(StepFailed, match="read back as 0"):
        check_round_trip(text, wanted)


def test_other_lost_metadata_are_noticed():
    with pytest.raises(StepFailed, match="other values of base_model"):
        check_round_trip("---\nlicense: 'no'\n---\n", ModelCardData(license="no", base_model="lab/base"))
    check_round_trip("---\nlicense: mit\n---\n", ModelCardData(license="mit"))


def test_interrupted_copy_goes_on_and_keeps_what_is_whole(home, inputs, tmp_path):
    target = tmp_path / "published"
    config = Upload(target=DirectoryTarget(path=target))
    first, facts = publish(home, inputs, config)
    assert facts["copied"] == facts["files"]
    whole = tree(target)
    (target / "gguf" / f"{NAME}-F16.gguf").write_bytes(b"torn")
    (target / "config.json").unlink()
    (target / "SHA256SUMS").unlink()
    (target / "SHA256SUMS.partial").write_text(
        "".join(f"{'-' * 64}  {name}\n" for name in tree(target)), encoding="utf-8"
    )
    first.path.rename(tmp_path / "aside")
    _, facts = publish(home, inputs, config)
    assert facts["copied"] == 3
    assert tree(target) == whole


def test_killed_while_copying_ends_in_the_same_bytes(home, inputs, tmp_path):
    target = tmp_path / "published"
    config = Upload(target=DirectoryTarget(path=target)).model_dump_json()
    command = [sys.executable, "-m", "tests.upload.made", str(home), config]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    wait = "import sys,time,pathlib,subprocess as s\np=s.Popen(sys.argv[2:],stdout=s.DEVNULL)\n" \
        "while p.poll() is None and len(list(pathlib.Path(sys.argv[1]).rglob('*.json')))<3: time.sleep(.001)\np.kill();p.wait()"  # fmt: skip
    subprocess.run([sys.executable, "-c", wait, str(target), *command], env=environment, cwd=ROOT, check=True)
    assert not (target / "SHA256SUMS").exists(), "the list goes last"
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["verified"] == facts["files"] == len(tree(target))


def test_folder_with_other_files_is_refused_untouched(home, inputs, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "README.md").write_text("my notes", encoding="utf-8")
    with pytest.raises(InputError, match=r"not from here, for example README\.md"):
        publish(home, inputs, Upload(target=DirectoryTarget(path=target)))
    assert tree(target) == {"README.md": hash_file(target / "README.md")}


def test_damaged_input_stops_before_anything_is_written(home, inputs, tmp_path):
    path = inputs["fold"].path / "gguf" / f"{NAME}-F16.gguf"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    target = tmp_path / "published"
    with pytest.raises(DamagedArtifact, match=r"F16\.gguf"):
        publish(home, inputs, Upload(target=DirectoryTarget(path=target)))
    assert not target.exists()


@pytest.mark.parametrize(
    ("report", "rule"),
    [
        (f"hf_{'a1B2' * 9}", "Hugging Face token"),
        ("-----BEGIN RSA PRIVATE KEY-----", "private key"),
        ("see /home/someone/model.bin", "home folder"),
        (r"see C:\Users\someone\model.bin", "Windows user folder"),
        ("write to taro.yamada@gmail.com", "mail address"),
        ("call 090-1234-5678", "Japanese phone number"),
        ("個人番号 1234-5678-9012", "My Number"),
        ("paid with 4111 1111 1111 1111", "card number"),
        ("電話 ０９０−１２３４−５６７８", "Japanese phone number"),
        ("電話 09012345678", "Japanese phone number"),
        ("電話 03(1234)5678", "Japanese phone number"),
        ("read /mnt/disk2/corpus/a.txt", "folder of a machine"),
        (r'{"model": "D:\\models\\phi"}', "Windows folder"),
    ],
)
def test_secrets_and_personal_data_are_found_and_not_shown(report, rule):
    findings = list(scan_text("eval/report.md", ["# Report", "", report], {}))
    assert [(f.path, f.where) for f in findings] == [("eval/report.md", "line 3")]
    assert findings[0].rule.startswith(rule)
    assert report.split()[-1] not in str(findings[0])


def test_a_finding_stops_it_before_anything_leaves(home, tmp_path):
    secret = f"hf_{'a1B2' * 9}"
    target = tmp_path / "published"
    with pytest.raises(InputError, match=r"eval/report\.md, line 2: Hugging Face token") as caught:
        publish(
            home,
            make_inputs(home, report=f"# Report\n{secret}\n".encode()),
            Upload(target=DirectoryTarget(path=target)),
        )
    assert secret not in str(caught.value)
    assert not target.exists()


def found_in(inputs, name, path):
    entry = replace(gather(inputs)[0], path=name, source=path)
    return [str(finding) for finding in scan([entry], {})]


def test_metadata_of_gguf_files_are_searched(inputs, tmp_path):
    path = tmp_path / "x.gguf"
    tokens = ["<unk>", "a@b.com", "plain"]
    path.write_bytes(
        gguf_bytes({"general.description": "写真 /home/someone/写真/", "general.author": "taro@gmail.com"}, tokens)
    )
    assert found_in(inputs, "gguf/x.gguf", path) == [
        "gguf/x.gguf, general.description: home folder of a user", "gguf/x.gguf, general.author: mail address",
    ]  # fmt: skip
    path.write_bytes(gguf_bytes({}, [f"hf_{'a1B2' * 9}"]))
    assert found_in(inputs, "gguf/x.gguf", path) == ["gguf/x.gguf, tokenizer.ggml.tokens: Hugging Face token"]


def test_metadata_of_safetensors_and_pictures_are_searched(inputs, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(tensor_bytes(1, 400, {"saved_by": "taro.yamada@gmail.com", "path": "/Users/taro/x/y"}))
    assert set(found_in(inputs, "x.safetensors", path)) == {
        "x.safetensors, saved_by: mail address", "x.safetensors, path: home folder of a user"
    }  # fmt: skip
    path = tmp_path / "x.png"
    path.write_bytes(png_bytes({"Source": "see /tmp/pytest/x"}))
    assert found_in(inputs, "eval/x.png", path) == ["eval/x.png, Source: temporary folder"]


def test_binary_file_that_is_not_what_its_name_says_is_refused(inputs, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for name in ("x.gguf", "x.safetensors", "x.png"):
        with pytest.raises(InputError, match="cannot be searched"):
            found_in(inputs, name, path)


def test_tokenizer_model_is_searched_to_its_end(inputs, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\x00" * (17 << 20) + b"\x01/home/someone/corpus.txt\x00")
    assert found_in(inputs, "tokenizer.model", path) == ["tokenizer.model, text in it: home folder of a user"]


def test_finding_that_was_judged_harmless_passes(home):
    inputs = make_inputs(home, report=b"# Report\nsee /home/someone/x\n")
    config = Upload(accepted_findings=("eval/report.md: mail address",))
    with pytest.raises(InputError, match="home folder of a user"):
        publish(home, inputs, config)
    publish(home, inputs, Upload(accepted_findings=("eval/report.md: home folder of a user",)))


def test_the_environments_own_token_and_the_homes_path_are_found(home, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-without-any-shape")
    inputs = make_inputs(home, report=f"a-token-without-any-shape\n{home}\n".encode())
    with pytest.raises(InputError, match=r"(?s)line 1: value of HF_TOKEN.*line 2: value of SO8T home"):
        publish(home, inputs, Upload())


@pytest.mark.parametrize(
    "text",
    [
        "0.12345678901234567 and 1234567890123456",
        "mail user@example.com or a@mail.example.org",
        "2025-11-07 12:00:00, ISO 9241-210, chapters 03-12",
        "https://huggingface.co/lab/model and s3://bucket/home/x",
        "relative/home/user and ./tmp/x",
        "what does /etc/passwd hold? and/or data/work/x, 24/7/365",
        r"Q:\nWhat is it?\nA:\ndata, f:\\mathbb{R}",
        "kill -9 1234 5678",
    ],
)
def test_harmless_text_passes(text):
    assert list(scan_text("eval/report.md", [text], {})) == []


def test_rows_under_another_licence_stop_it(home):
    with pytest.raises(InputError, match=r"cc-by-nc-4\.0"):
        publish(home, make_inputs(home, licence="cc-by-nc-4.0"), Upload())


def test_another_licence_than_the_bases_is_refused(home, inputs):
    with pytest.raises(InputError, match="the base model's is mit"):
        publish(home, inputs, Upload(licence="apache-2.0"))


def test_modelfile_says_what_the_model_was_trained_with(home, inputs):
    artifact, _ = publish(home, inputs, Upload())
    text = (artifact.path / "repository" / "Modelfile").read_text(encoding="utf-8")
    assert f"FROM ./gguf/{NAME}-Q8_0.gguf\nFROM ./gguf/{NAME}-mmproj-F16.gguf\n" in text
    assert "PARAMETER num_ctx 512\n" in text
    assert 'PARAMETER stop "<|end|>"' in text
    assert 'PARAMETER stop "<|endoftext|>"' in text
    assert render([{"role": "user", "content": "hi"}]) == "<|user|>\nhi<|end|>\n<|assistant|>\n"


def test_another_chat_template_is_refused():
    check_template(TEMPLATE)
    with pytest.raises(InputError, match="the chat template gives"):
        check_template(TEMPLATE.replace("<|user|>", "<|human|>"))
    with pytest.raises(InputError, match="cannot be rendered"):
        check_template("{{ cycler.__init__.__globals__.os.getcwd() }}")


@pytest.mark.parametrize(
    "path", ["../x.json", "aux.json", "a b.json", "x.pkl", "x.py", ".hidden/x.json", "Config.json"]
)
def test_unsafe_paths_and_types_are_refused(inputs, path):
    entries = gather(inputs)
    check_entries(entries)
    with pytest.raises(StepFailed):
        check_entries([*entries, replace(entries[0], path=path)])


def test_links_are_refused(inputs, tmp_path):
    entry = gather(inputs)[0]
    link = tmp_path / "link"
    link.symlink_to(entry.source)
    with pytest.raises(StepFailed, match="not a plain file"):
        check_entries([replace(entry, source=link)])


def test_the_judges_key_is_looked_for_by_its_value(home, monkeypatch):
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("SO8T_JUDGE_KEY", "a-key-without-any-shape")
    found = scan_text("eval/report.md", ["judged with a-key-without-any-shape"], known_texts(home))
    assert [finding.rule for finding in found] == ["value of SO8T_JUDGE_KEY"]
