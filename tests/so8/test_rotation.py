"""The Cayley map and how rotations act."""

import pytest
import torch

from so8t.so8.generators import BLOCK, GENERATORS, blocks_of, entries_of, skew
from so8t.so8.rotation import cayley, determinant_error, orthogonality_error, rotate, rotate_columns, rotate_rows


def draw(*shape: int, std: float = 1.0, seed: int = 0) -> torch.Tensor:
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_entries_are_the_upper_triangle_row_by_row():
    matrix = skew(torch.arange(1.0, 29.0))
    assert matrix[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert matrix[1, 2] == 8
    assert matrix[6, 7] == 28
    assert torch.equal(matrix, -matrix.T)


def test_entries_and_matrices_are_inverse():
    entries = draw(5, 3, GENERATORS)
    assert torch.equal(entries_of(skew(entries)), entries)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="27 numbers"):
        skew(torch.zeros(27))
    with pytest.raises(ValueError, match="12 channels"):
        blocks_of(12)


@pytest.mark.parametrize("std", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("alpha", [0.3, 1.0, -2.0])
def test_rotations_lie_in_so8_at_every_scale(std, alpha):
    rotations = cayley(draw(200, GENERATORS, std=std), alpha)
    assert orthogonality_error(rotations) < 5e-6
    assert determinant_error(rotations) < 5e-6


def test_zero_is_exactly_the_identity():
    assert torch.equal(cayley(torch.zeros(3, GENERATORS)), torch.eye(BLOCK).expand(3, BLOCK, BLOCK))


def test_agrees_with_the_exponential_to_second_order():
    entries = draw(50, GENERATORS).double()
    errors = []
    for scale in (0.02, 0.01):
        difference = cayley(scale * entries) - torch.linalg.matrix_exp(scale * skew(entries))
        errors.append(float(difference.abs().max()))
    # The first term in which they differ is A^3 / 12: half the angle is an eighth of the error.
    assert errors[1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.05)


def test_alpha_is_the_scale_of_the_generators():
    entries = draw(4, GENERATORS)
    assert torch.allclose(cayley(entries, 0.5), cayley(0.5 * entries), atol=1e-6)
    assert torch.allclose(cayley(entries, -1.0), cayley(entries, 1.0).mT, atol=1e-5)


def test_float64_stays_float64_and_half_types_are_widened():
    assert cayley(torch.zeros(28, dtype=torch.float64)).dtype == torch.float64
    assert cayley(torch.zeros(28, dtype=torch.bfloat16)).dtype == torch.float32


def test_gradient_at_zero_is_live():
    entries = torch.zeros(2, GENERATORS, requires_grad=True)
    rotate(cayley(entries), draw(3, 16))[:, 0].sum().backward()
    assert entries.grad is not None
    assert entries.grad.abs().max() > 0


def test_weights_and_activations_rotate_alike():
    weight, x = draw(24, 16), draw(5, 16, seed=1)
    left, right = cayley(draw(3, GENERATORS, seed=2)), cayley(draw(2, GENERATORS, seed=3))
    live = rotate(left, rotate(right, x) @ weight.T)
    folded = x @ rotate_rows(left, rotate_columns(weight, right)).T
    assert torch.allclose(live, folded, atol=1e-4)
    dense = torch.block_diag(*left) @ weight @ torch.block_diag(*right)
    assert torch.allclose(rotate_rows(left, rotate_columns(weight, right)), dense, atol=1e-5)


def test_singular_values_do_not_change():
    weight = draw(24, 16).double()
    turned = rotate_columns(rotate_rows(cayley(draw(3, GENERATORS).double()), weight), cayley(draw(2, 28).double()))
    assert torch.allclose(torch.linalg.svdvals(turned), torch.linalg.svdvals(weight), atol=1e-12)
