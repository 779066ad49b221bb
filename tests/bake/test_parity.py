import numpy as np
import pytest
import torch

from so8t.bake.checks import regret
from so8t.bake.gate import Gate
from so8t.bake.parity import Parity, cosine_least, cosine_min


def test_a_model_against_itself_is_no_different():
    logits = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    parity = Parity()
    parity.add(logits, logits, [1, 2, 3, 4, 5])
    assert (parity.kl, parity.difference_max, parity.top1, parity.perplexity_ratio) == (0.0, 0.0, 1.0, 1.0)


def test_numbers_agree_with_torch():
    rng = np.random.default_rng(1)
    texts = [
        (
            rng.normal(size=(n, 11)).astype(np.float32),
            rng.normal(size=(n, 11)).astype(np.float32),
            rng.integers(0, 11, n).tolist(),
        )
        for n in (4, 7)
    ]
    parity = Parity()
    for reference, found, ids in texts:
        parity.add(reference, found, ids)
    p = torch.cat([torch.from_numpy(text[0]) for text in texts]).double()
    q = torch.cat([torch.from_numpy(text[1]) for text in texts]).double()
    kl = torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="batchmean")
    assert parity.kl == pytest.approx(float(kl))
    assert parity.top1 == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))

    def loss(which: int) -> float:
        rows = [(torch.from_numpy(text[which][:-1]).double(), torch.tensor(text[2][1:])) for text in texts]
        return float(
            torch.nn.functional.cross_entropy(torch.cat([r for r, _ in rows]), torch.cat([t for _, t in rows]))
        )

    assert parity.perplexity_ratio == pytest.approx(np.exp(loss(1) - loss(0)))


def test_not_finite_logits_are_counted():
    logits = np.zeros((2, 4), np.float32)
    broken = logits.copy()
    broken[1, 2] = np.nan
    parity = Parity()
    parity.add(logits, broken, [0, 1])
    assert parity.not_finite == 1


def test_cosine_takes_the_least_alike_row():
    a = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    b = np.array([[3.0, 0.0], [1.0, 1.0]], np.float32)
    assert cosine_min(a, b) == pytest.approx(np.sqrt(0.5))


def test_regret_is_measured_by_the_reference():
    reference = np.array([[1.0, 3.0, 2.5]], np.float32)
    assert regret(reference, np.array([[0.0, 9.0, 0.0]], np.float32)) == 0
    assert regret(reference, np.array([[0.0, 8.0, 9.0]], np.float32)) == pytest.approx(0.5)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_finite_is_never_a_small_difference(odd):
    reference = np.random.default_rng(2).normal(size=(4, 9)).astype(np.float32)
    found = reference.copy()
    found[1, 3] = odd
    for first, second in ((reference, found), (found, reference)):
        parity = Parity()
        parity.add(reference, reference, [1, 2, 3, 4])
        parity.add(first, second, [1, 2, 3, 4])
        parity.add(reference, reference, [1, 2, 3, 4])
        for value in (parity.difference_max, parity.relative_error):
            assert not Gate("error", value, 1e-4).passed
        assert not Gate("KL", parity.kl, 1.0).passed


def test_the_least_cosine_of_several_images_is_not_that_of_the_finite_ones():
    good = np.random.default_rng(3).normal(size=(4, 9)).astype(np.float32)
    lost = good.copy()
    lost[2] = np.nan
    assert cosine_least([good, good], [good, good]) == pytest.approx(1.0)
    for found in ([good, lost], [lost, good]):
        assert not Gate("cosine", cosine_least([good, good], found), 0.9999, ">=").passed
