import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from so8t.errors import InputError
from so8t.so8.merge import (
    Adapter,
    Change,
    Folded,
    Tensors,
    read_adapter,
    read_train_adapter,
    rotations,
    write_folded,
)
from so8t.so8.rounding import narrow

RNG = np.random.default_rng(0)
ROWS, COLUMNS, RANK = 24, 40, 3


def change(*, low_rank: bool = True, alpha: float = 0.7) -> Change:
    rng = np.random.default_rng(5)
    return Change(
        r_out=rotations(rng.normal(size=(ROWS // 8, 28)), alpha),
        r_in=rotations(rng.normal(size=(COLUMNS // 8, 28)), alpha),
        lora_a=rng.normal(size=(RANK, COLUMNS)) if low_rank else None,
        lora_b=rng.normal(size=(ROWS, RANK)) if low_rank else None,
    )


def test_revert_undoes_apply():
    weight = RNG.normal(size=(ROWS, COLUMNS))
    np.testing.assert_allclose(change().revert(change().apply(weight)), weight, atol=1e-12)


def test_rotations_keep_singular_values():
    weight = RNG.normal(size=(ROWS, COLUMNS))
    folded = change(low_rank=False).apply(weight)
    assert np.abs(folded - weight).max() > 0.5
    np.testing.assert_allclose(
        np.linalg.svd(folded, compute_uv=False), np.linalg.svd(weight, compute_uv=False), rtol=1e-13
    )


def test_rotations_are_special_orthogonal():
    blocks = rotations(RNG.normal(size=(50, 28)), 1.3)
    np.testing.assert_allclose(blocks.transpose(0, 2, 1) @ blocks, np.broadcast_to(np.eye(8), (50, 8, 8)), atol=1e-13)
    np.testing.assert_allclose(np.linalg.det(blocks), 1.0, atol=1e-13)


def dense(generators: np.ndarray, alpha: float) -> torch.Tensor:
    """R as one big matrix, straight from the definition, entry by entry."""
    size = 8 * len(generators)
    skew = torch.zeros(size, size, dtype=torch.float64)
    for block, entries in enumerate(generators):
        values = iter(entries)
        for i in range(8):
            for j in range(i + 1, 8):
                a = float(next(values))
                skew[8 * block + i, 8 * block + j], skew[8 * block + j, 8 * block + i] = a, -a
    eye = torch.eye(size, dtype=torch.float64)
    return torch.linalg.inv(eye - alpha * skew / 2) @ (eye + alpha * skew / 2)


def test_fold_is_the_formula_for_column_vectors_and_a_wrong_sign_is_seen():
    rng = np.random.default_rng(5)
    out, inside = rng.normal(size=(ROWS // 8, 28)), rng.normal(size=(COLUMNS // 8, 28))
    a, b = rng.normal(size=(RANK, COLUMNS)), rng.normal(size=(ROWS, RANK))
    weight, x = RNG.normal(size=(ROWS, COLUMNS)), RNG.normal(size=COLUMNS)
    wanted = dense(out, 0.7) @ (torch.from_numpy(weight + b @ a) @ (dense(inside, 0.7) @ torch.from_numpy(x)))
    found = change().apply(weight) @ x
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-11)
    inverse = change(alpha=-0.7).apply(weight) @ x
    assert np.linalg.norm(inverse - wanted.numpy()) > 0.3 * np.linalg.norm(wanted.numpy())


def test_row_slices_fold_as_the_whole_does():
    weight = RNG.normal(size=(ROWS, COLUMNS))
    whole = change().apply(weight)
    pieces = np.concatenate([change().apply(weight[start : start + 8], start) for start in range(0, ROWS, 8)])
    np.testing.assert_allclose(pieces, whole, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_read_what_safetensors_wrote(tmp_path, dtype):
    tensor = torch.randn(5, 3).to(dtype)
    save_file({"a": torch.ones(2, dtype=dtype), "w": tensor}, tmp_path / "m.safetensors")
    rows = Tensors([tmp_path / "m.safetensors"]).rows("w", 1, 4)
    np.testing.assert_array_equal(rows, tensor[1:4].double().numpy())


def test_bf16_rounds_as_torch_does():
    values = np.random.default_rng(1).normal(size=4096).astype(np.float32)
    wanted = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(narrow(values.astype(np.float64), "BF16", "w"), wanted)


@pytest.mark.parametrize(("dtype", "value"), [("F16", 65520.0), ("BF16", 3.4e38), ("F32", 1e39), ("F16", np.nan)])
def test_values_out_of_range_are_refused_by_name_and_count(dtype, value):
    values = np.array([1.0, value, value])
    with pytest.raises(InputError, match=r"blk\.w: 2 value"):
        narrow(values, dtype, "blk.w")


def test_largest_half_is_not_refused():
    assert narrow(np.array([65504.0, -65519.0]), "F16", "w").tolist() == [65504.0, -65504.0]


def test_untouched_tensors_and_header_are_byte_identical(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(
        {"one.weight": torch.randn(16, 8).bfloat16(), "two.weight": torch.randn(16, 8).bfloat16()},
        source,
        metadata={"x": "y"},
    )
    folded = Folded(Tensors([source]), Adapter({"two.weight": Change(r_out=rotations(RNG.normal(size=(2, 28)), 1.0))}))
    told = []
    assert write_folded(source, folded, target, lambda done, total: told.append((done, total))) == 1
    assert told == [(0, 2), (1, 2)]
    before, after = load_file(source), load_file(target)
    assert source.stat().st_size == target.stat().st_size
    assert torch.equal(before["one.weight"], after["one.weight"])
    assert not torch.equal(before["two.weight"], after["two.weight"])
    data_at = 8 + int.from_bytes(source.read_bytes()[:8], "little")
    assert source.read_bytes()[:data_at] == target.read_bytes()[:data_at]


def test_token_rows_go_to_their_ids(world):
    base = Tensors.of_model(world.base.path)
    folded = Folded(base, read_train_adapter(world.train.path))
    state = load_file(world.train.path / "adapter" / "adapter.safetensors")
    before, after = base.whole("model.embed_tokens.weight"), folded.whole("model.embed_tokens.weight")
    ids = list(folded.adapter.token_ids)
    assert ids == sorted(ids)
    np.testing.assert_array_equal(after[ids], state["token_rows.embed_tokens"].double().numpy())
    others = np.setdiff1d(np.arange(len(before)), ids)
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"m.so8_out": torch.zeros(2, 27)}, r"shape \(2, 27\)"),
        ({"m.lora_a": torch.zeros(2, 8)}, "only one of lora_a and lora_b"),
        ({"m.what": torch.zeros(2)}, "unknown tensor"),
        ({"token_rows.lm_head": torch.zeros(3, 8)}, "3 rows for lm_head.weight"),
    ],
)
def test_adapter_files_that_are_wrong_are_refused(tmp_path, tensors, match):
    save_file(tensors, tmp_path / "adapter.safetensors")
    with pytest.raises(InputError, match=match):
        read_adapter(tmp_path / "adapter.safetensors", 1.0, 1.0, {"<final>": 4})


def test_adapter_of_another_base_is_refused(world):
    base = Tensors.of_model(world.base.path)
    name = "model.layers.0.self_attn.o_proj.weight"
    with pytest.raises(InputError, match=r"so8_out of model\.layers\.0\.self_attn\.o_proj\.weight does not fit"):
        Folded(base, Adapter({name: Change(r_out=rotations(np.zeros((5, 28)), 1.0))}))
    with pytest.raises(InputError, match=r"the adapter changes model\.layers\.9"):
        Folded(base, Adapter({"model.layers.9.x.weight": Change()}))


def test_cut_file_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.zeros(64, 8)}, path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="ends within w"):
        Tensors([path])
    path.write_bytes(b"version https://git-lfs")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        Tensors([path])


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFFC00000])
def test_no_nan_becomes_a_number_of_bf16(bits):
    values = np.array([bits], np.uint32).view(np.float32)
    for given in (values, values.astype(np.float64)):
        with pytest.raises(InputError, match=r"w: 1 value\(s\) are not finite as BF16"):
            narrow(given, "BF16", "w")
