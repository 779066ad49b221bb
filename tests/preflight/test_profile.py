"""The smaller profile: the least change that fits, the same effective batch, and words that say it."""

from dataclasses import replace

import pytest

from so8t import recoveries
from so8t.config import Machine, load_config
from so8t.plan import hardware
from so8t.preflight import look, memory
from so8t.preflight import scene as prepared
from so8t.preflight.look import LASTS
from so8t.preflight.profile import applied, choose, noted, taken_over
from so8t.preflight.scene import set_scene
from so8t.session import SessionFile
from tests.conftest import ROOT

BOREA = ROOT / "configs" / "borea_phi35.yaml"
GIB = 1 << 30
FIXED = ("train.warmup.micro_batch=8", "train.align.micro_batch=8", "train.ppo.micro_batch=4")


@pytest.fixture
def scene(tmp_path):
    def make(*overrides, gpu_gib=0, memory_gib=64):
        config = load_config(BOREA, [*overrides, f"machine.device={'cuda' if gpu_gib else 'cpu'}"], tmp_path)
        found = set_scene(config, LASTS["pipeline"])
        machine = replace(found.machine, gpu="a card", gpu_bytes=gpu_gib * GIB, memory_bytes=memory_gib * GIB)
        return replace(found, machine=machine)

    return make


def chosen(scene):
    return choose(scene.shapes, scene.machine.gpu_bytes, scene.machine.memory_bytes)


def test_what_fits_stays_as_it_is(scene):
    assert chosen(scene("profile=12gb", gpu_gib=80)).changes == {}


def test_micro_batches_come_down_first_then_activations_are_computed_twice(scene):
    roomy = chosen(scene("profile=24gb", *FIXED, "train.adapter.gradient_checkpointing=false", gpu_gib=200))
    assert roomy.changes == {}
    peak = roomy.before.device_bytes / GIB
    less = chosen(scene("profile=24gb", *FIXED, "train.adapter.gradient_checkpointing=false", gpu_gib=int(peak * 0.6)))
    assert less.fits
    assert list(less.changes) == ["micro_batch_max"]
    least = chosen(scene("profile=24gb", *FIXED, "train.adapter.gradient_checkpointing=false", gpu_gib=15))
    assert least.fits
    assert "save_memory" in least.changes
    assert least.after.device_bytes <= 15 * GIB < least.before.device_bytes


def test_what_cannot_fit_is_said_and_nothing_is_changed(scene):
    made = scene("profile=24gb", *FIXED, gpu_gib=4)
    choice = chosen(made)
    assert (choice.fits, choice.changes) == (False, {})
    found = memory.check_gpu(made, choice, 4 * GIB)
    assert found.state == "warn", "estimates warn; only the allocator knows"
    assert "nf4" in found.do


def test_a_smaller_profile_is_named(scene):
    made = scene("profile=24gb", *FIXED, gpu_gib=16)
    choice = chosen(made)
    assert choice.changes
    found = memory.check_gpu(made, choice, 16 * GIB)
    assert found.state == "warn"
    assert "machine.micro_batch_max=" in found.found
    assert memory.check_gpu(made, chosen(scene("profile=12gb", gpu_gib=24)), GIB).do == "close what else uses the GPU"


def test_on_a_cpu_main_memory_decides(scene):
    choice = chosen(scene(*FIXED, "train.adapter.base_dtype=bfloat16", memory_gib=14))
    assert choice.changes
    assert choice.after.host_bytes <= 14 * GIB < choice.before.host_bytes


def test_who_wants_no_change_gets_none_and_is_warned(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "detect", lambda home: hardware.Machine("", 0, 14 * GIB, 1 << 40, 8))
    monkeypatch.setattr(memory, "memory_limit", lambda: 14 * GIB)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    settings = FIXED

    def report(*more):
        return look.look(load_config(BOREA, [*settings, *more], tmp_path), LASTS["pipeline"])

    taken, left = report(), report("preflight.shrink=false")
    assert list(taken.overrides) == ["machine.micro_batch_max"]
    assert taken.fits
    assert (left.overrides, left.fits) == ({}, False)
    said = {one.check: one for one in left.findings}["memory"]
    assert (said.state, "by itself" in said.do) == ("warn", False)


def test_a_profile_of_the_file_that_fits_is_named(tmp_path, monkeypatch):
    card = hardware.Machine("RTX 3060", 12 * GIB, 64 * GIB, 1 << 40, 8)
    monkeypatch.setattr(prepared, "detect", lambda home: card)
    monkeypatch.setattr(look.gpu, "torch_build", lambda: ("2.13.0", "13.0"))
    found = look.other_profiles(BOREA, ["profile=80gb"], tmp_path, LASTS["pipeline"])
    assert found.do == "--profile 12gb", "a 4-bit base; bf16 and an image leave no room"
    monkeypatch.setattr(prepared, "detect", lambda home: replace(card, gpu_bytes=GIB))
    assert "no profile" in look.other_profiles(BOREA, [], tmp_path, LASTS["pipeline"]).found


def test_effective_batches_stay():
    before = load_config(BOREA, FIXED).train
    after = before.within(2, save_memory=True)
    assert [getattr(after, name).micro_batch for name in ("align", "warmup", "ppo")] == [2, 2, 2]
    assert after.adapter.gradient_checkpointing
    for section, keys in {
        "warmup": ("batch_text", "batch_image"),
        "ppo": ("batch", "minibatch"),
        "align": ("batch",),
    }.items():
        for key in keys:
            assert getattr(getattr(after, section), key) == getattr(getattr(before, section), key)
    assert before.within(0, save_memory=False) is before
    automatic = load_config(BOREA).train
    assert automatic.within(2, save_memory=False).warmup.micro_batch == 0, "it finds its own"


def test_overrides_go_through_a_session_and_back():
    settings = Machine()
    overrides = noted({"micro_batch_max": 2.0, "save_memory": 1.0}) | {"warmup.micro_batch": 1.0}
    made = applied(settings, overrides)
    assert (made.micro_batch_max, made.save_memory) == (2, True)
    assert made.model_copy(update={"micro_batch_max": 0, "save_memory": False}) == settings
    assert applied(settings, {"warmup.micro_batch": 1.0}) is settings


def test_what_a_run_takes_over_holds_for_its_later_attempts(tmp_path):
    first = SessionFile.open(tmp_path, "run-1", "run")
    assert taken_over(tmp_path, first, {}) == {}
    found = noted({"micro_batch_max": 4.0})
    assert taken_over(tmp_path, first, found) == found
    second = SessionFile.open(tmp_path, "run-1", "run")
    assert taken_over(tmp_path, second, {}) == found, "a machine that has grown meanwhile changes no bytes of this run"
    assert taken_over(tmp_path, second, noted({"micro_batch_max": 1.0})) == found
    (told,) = recoveries.read(tmp_path)
    assert (told.step, told.policy, "machine.micro_batch_max=4" in told.detail) == (
        "preflight",
        "smaller profile",
        True,
    )


@pytest.mark.parametrize(
    ("line", "file", "text", "limit"),
    [
        ("0::/a/b", "a/memory.max", "1048576\n", 1048576),
        ("0::/a/b", "a/b/memory.max", "max\n", 0),
        ("4:memory:/a/b", "memory/a/b/memory.limit_in_bytes", "2097152\n", 2097152),
        ("7:cpu:/a", "memory/a/memory.limit_in_bytes", "1\n", 0),
    ],
)
def test_a_control_group_s_limit_counts(tmp_path, line, file, text, limit):
    (tmp_path / "cgroup").write_text(line + "\n", encoding="utf-8")
    path = tmp_path / "mounts" / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    found = hardware.memory_limit(tmp_path / "cgroup", tmp_path / "mounts")
    assert found == (limit or hardware.memory_limit(tmp_path / "none"))
