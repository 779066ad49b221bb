"""Faults of a bake, put in on purpose: each must be caught, by a gate that names it."""

import dataclasses

import gguf
import numpy as np
import pytest

from so8t import models
from so8t.bake import checks, gguf_model, run
from so8t.bake.config import Bake
from so8t.bake.gguf_file import Slot
from so8t.so8 import merge
from tests.bake.test_gguf import write
from tests.bake.test_run import LOOSE


@pytest.fixture(scope="module")
def sound(world, folded, progress, tmp_path_factory):
    """The bench of a bake without a fault, whose answers every mutant is compared with."""
    inputs = {"base": world.base, "train": world.train, "data": world.data, "fold": folded}
    bench = run.Bench(Bake(gates=LOOSE), inputs, tmp_path_factory.mktemp("bench"), progress)
    assert [str(gate) for gate in (bench.folding_gate(), bench.conversion_gate()) if not gate.passed] == []
    return bench


def transposed_rotations(monkeypatch):
    """The inverse rotation, the fault that was once called verified."""
    right = merge.rotations
    monkeypatch.setattr(merge, "rotations", lambda *given: right(*given).transpose(0, 2, 1))


def swapped_sides(monkeypatch):
    """Input rotations on the output side and the other way round, where the linear is square."""
    right = merge._change

    def swapped(module, have, *given):
        change = right(module, have, *given)
        square = "o_proj" in module
        return dataclasses.replace(change, r_out=change.r_in, r_in=change.r_out) if square else change

    monkeypatch.setattr(merge, "_change", swapped)


def changed_slots(monkeypatch, choose, change):
    """GGUF tensors that are written otherwise than they should be."""
    right = gguf_model._slots, gguf_model._rope_slots

    def changed(slots):
        for slot in slots:
            rows = [change(data) for data in slot.rows] if choose in slot.name else slot.rows
            yield Slot(slot.name, slot.shape, slot.dtype, rows)

    monkeypatch.setattr(gguf_model, "_slots", lambda *given: changed(right[0](*given)))
    monkeypatch.setattr(gguf_model, "_rope_slots", lambda *given: changed(right[1](*given)))


def dropped_norm(monkeypatch):
    """A layer's norm that multiplies by one."""
    changed_slots(monkeypatch, "blk.1.ffn_norm", np.ones_like)


def wrong_rope_factor(monkeypatch):
    """The first of the factors for short texts, a tenth too large."""
    changed_slots(monkeypatch, "rope_factors_short", lambda data: data * np.where(np.arange(len(data)) == 0, 1.1, 1.0))


def flipped_byte(monkeypatch):
    """The upper byte of one weight, where its exponent is, while it is written."""

    def flip(data):
        damaged = data.copy()
        damaged.view(np.uint8).reshape(-1)[data.itemsize - 1] ^= 0x40
        return damaged

    changed_slots(monkeypatch, "blk.0.attn_output", flip)


def mutant(sound, progress, out, **kept):
    bench = run.Bench(Bake(gates=LOOSE), sound.inputs, out, progress)
    bench.__dict__.update(live=sound.live, **kept)
    return bench


@pytest.mark.parametrize("mutate", [transposed_rotations, swapped_sides])
def test_fault_of_the_fold_is_seen_beside_the_live_adapter(sound, mutate, monkeypatch, progress, tmp_path):
    mutate(monkeypatch)
    gate = mutant(sound, progress, tmp_path).folding_gate()
    assert (gate.name, gate.passed) == ("live against folded, relative logit error", False)
    assert gate.value > 1000 * gate.limit


@pytest.mark.parametrize("mutate", [dropped_norm, wrong_rope_factor, flipped_byte])
def test_fault_of_the_file_is_seen_beside_transformers(sound, mutate, monkeypatch, progress, tmp_path):
    bench = mutant(sound, progress, tmp_path, plain=sound.plain)
    mutate(monkeypatch)
    gate = bench.conversion_gate()
    assert (gate.name, gate.passed) == ("transformers against F32 GGUF, max logit difference", False)
    assert not gate.value <= 10 * gate.limit  # NaN is a fault too


def test_missing_bos_flag_is_read_back(world, folded, monkeypatch, tmp_path):
    """Without the key llama.cpp puts a BOS before every prompt."""
    monkeypatch.setattr(gguf.GGUFWriter, "add_add_bos_token", lambda self, value: None)
    path = write(tmp_path / "m.gguf", world.base.path, world.train.path / "tokenizer", "so8t-phi-3", file_type="F16")
    hf = folded.path / "hf"
    (gate,) = checks.metadata_gates(path, models.load_tokenizer(hf), hf, "so8t-phi-3")
    assert not gate.passed
    assert gate.detail == "add_bos_token: True, wanted False"
