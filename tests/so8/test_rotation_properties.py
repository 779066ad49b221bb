"""What must hold for every generator, alpha and map: searched, not sampled by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from so8t.so8.generators import BLOCK, GENERATORS
from so8t.so8.rotation import (
    MAPS,
    cayley,
    determinant_error,
    expm,
    inverse_cayley,
    orthogonality_error,
    rotate,
    rotate_columns,
    rotate_rows,
    rotations_of,
)

# Large ones too: near an angle of pi the Cayley map's generator runs to infinity.
entry = st.floats(-100, 100, allow_nan=False, width=32)
blocks = st.lists(st.lists(entry, min_size=GENERATORS, max_size=GENERATORS), min_size=1, max_size=3)
alphas = st.floats(-2, 2, allow_nan=False)
each_map = pytest.mark.parametrize("rotation_map", MAPS)
few = settings(max_examples=40, deadline=None)


def tensor(rows, dtype=torch.float64):
    return torch.tensor(rows, dtype=dtype)


@each_map
@few
@given(rows=blocks, alpha=alphas)
def test_every_generator_gives_a_rotation(rotation_map, rows, alpha):
    # The scaled power series of the exponential loses digits with the angle.
    bound = 1e-12 if rotation_map == "cayley" else 1e-9
    rotations = rotations_of(tensor(rows), alpha, rotation_map)
    assert orthogonality_error(rotations) < bound
    assert determinant_error(rotations) < bound


@few
@given(rows=blocks, alpha=alphas)
def test_single_precision_stays_in_the_group(rows, alpha):
    rotations = cayley(tensor(rows, torch.float32), alpha)
    assert orthogonality_error(rotations) < 2e-5
    assert determinant_error(rotations) < 2e-5


@few
@given(rows=blocks)
def test_a_rotation_tells_its_generator(rows):
    """Relative to the largest entry squared: so ill-posed is the way back near an angle of pi."""
    entries = tensor(rows)
    back = inverse_cayley(cayley(entries))
    assert (back - entries).abs().max() <= 1e-13 * (1 + entries.square().sum())


@each_map
@few
@given(rows=blocks)
def test_the_opposite_generator_is_the_inverse(rotation_map, rows):
    forth, back = (rotations_of(tensor(rows), alpha, rotation_map) for alpha in (1.0, -1.0))
    assert torch.allclose(forth.mT, back, atol=1e-9)
    assert torch.allclose(rotations_of(-tensor(rows), 1.0, rotation_map), back, atol=1e-9)


@each_map
@few
@given(rows=blocks, alpha=alphas)
def test_alpha_scales_the_generator_and_nothing_else(rotation_map, rows, alpha):
    inside = rotations_of(tensor(rows), alpha, rotation_map)
    assert torch.allclose(inside, rotations_of(alpha * tensor(rows), 1.0, rotation_map), atol=1e-9)
    assert torch.equal(rotations_of(tensor(rows), 0.0, rotation_map), torch.eye(BLOCK).double().expand(len(rows), 8, 8))


@few
@given(rows=blocks, first=alphas, second=alphas)
def test_only_the_exponential_adds_alphas(rows, first, second):
    """R(a) R(b) = R(a + b) for exp. For Cayley the half angles' tangents scale, and only R(-a) R(a) is that simple."""
    small = tensor(rows) / 100
    assert torch.allclose(expm(small, first) @ expm(small, second), expm(small, first + second), atol=1e-10)


def test_the_angle_of_the_cayley_map_is_twice_an_arctangent():
    """A plane turned by a generator of size t turns by 2 atan(alpha t / 2), exact at any size."""
    for size in (1e-6, 0.5, 2.0, 40.0, 1e6):
        entries = torch.zeros(GENERATORS, dtype=torch.float64)
        entries[0] = size
        angle = 2 * torch.atan(torch.tensor(0.7 * size / 2, dtype=torch.float64))
        rotation = cayley(entries, 0.7)
        assert torch.allclose(rotation[0, 0], torch.cos(angle), atol=1e-14)
        assert torch.allclose(rotation[0, 1], torch.sin(angle), atol=1e-14)
        assert torch.equal(rotation[2:, 2:], torch.eye(6).double())


@each_map
@pytest.mark.parametrize("std", [0.0, 0.1, 3.0])
def test_gradient_against_finite_differences(rotation_map, std):
    entries = (
        std * torch.randn(2, GENERATORS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: rotations_of(e, 0.7, rotation_map), (entries,), atol=1e-6)


def test_gradient_against_differentiating_the_solve():
    entries = torch.randn(50, GENERATORS, generator=torch.Generator().manual_seed(3))
    weight = torch.randn(50, BLOCK, BLOCK, generator=torch.Generator().manual_seed(4))
    gradients = []
    for through in (cayley, plain_cayley):
        leaf = entries.clone().requires_grad_()
        (through(leaf) * weight).sum().backward()
        gradients.append(leaf.grad)
    assert torch.allclose(*gradients, atol=1e-5)


def plain_cayley(entries):
    from so8t.so8.generators import skew

    identity, half = torch.eye(BLOCK), skew(entries) / 2
    return torch.linalg.solve(identity - half, identity + half)


@few
@given(
    rows=st.lists(
        st.lists(st.floats(-3, 3, width=32), min_size=GENERATORS, max_size=GENERATORS), min_size=2, max_size=2
    )
)
def test_gradient_of_a_rotated_product_by_both_routes(rows):
    """Through the activations and through the weight: one derivative."""
    x = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    weight = torch.randn(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    found = []
    for live in (True, False):
        leaf = tensor(rows).requires_grad_()
        rotation = cayley(leaf)
        if live:
            y = rotate(rotation, rotate(rotation, x) @ weight.T)
        else:
            y = x @ rotate_rows(rotation, rotate_columns(weight, rotation)).T
        torch.dot(y.sum(0), torch.arange(16.0).double()).backward()
        found.append(leaf.grad)
    assert torch.allclose(*found, atol=1e-9)
