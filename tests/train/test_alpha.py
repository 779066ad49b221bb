"""The final alpha: chosen by folds, believed only where it holds crosswise, kept through everything that follows."""

import json
import math
import shutil
import signal

import numpy as np
import pytest
import torch

from so8t.bake.fold import rotation_error
from so8t.config import load_config
from so8t.errors import ConfigError
from so8t.labels import Label
from so8t.records import Record
from so8t.so8.adapted import load_system
from so8t.so8.merge import Folded, Tensors, read_train_adapter
from so8t.train.alpha import Alpha, likelihood_and_class
from so8t.train.config import Alpha as AlphaConfig
from so8t.train.crosswise import Tried, choose, folds, pick
from so8t.train.data import Sample
from so8t.train.warmup import weighted_loss
from tests.conftest import ROOT
from tests.train import tiny


def tried(alpha: float, *objective: float) -> Tried:
    return Tried(alpha, objective, objective, objective)


def test_one_wins_ties_and_gains_within_the_noise():
    plain = tried(1.0, 0.5, 0.7, 0.6, 0.6)
    assert choose([plain]).alpha == 1.0
    assert choose([plain, tried(0.8, 0.5, 0.7, 0.6, 0.6)]).alpha == 1.0
    lucky = choose([plain, tried(0.8, 0.9, 0.7, 0.6, 0.5)])
    assert lucky.best_candidate == 0.8
    assert lucky.gain == pytest.approx(0.075)
    assert lucky.alpha == 1.0, "one fold alone prefers it"
    sure = choose([plain, tried(0.8, 0.61, 0.8, 0.7, 0.69)])
    assert (sure.alpha, sure.gain) == (0.8, pytest.approx(0.1))
    assert sure.gain_crosswise == pytest.approx(0.1)
    assert 0 < sure.gain_crosswise_se < 0.01


def test_the_best_of_much_noise_is_not_believed():
    """Candidates that are all as good as alpha = 1 but for the noise: mostly 1 stays, where the best always wins."""
    generator = torch.Generator().manual_seed(0)
    kept = 0
    for _ in range(100):
        drawn = torch.randn(12, 5, generator=generator).tolist()
        kept += choose([tried(1 + 0.01 * i, *values) for i, values in enumerate(drawn)]).alpha == 1.0
    assert kept >= 75


def sample(number: int, label: int = 0, modality: str = "text") -> Sample:
    record = Record(f"row-{number}", modality, "en", "", "", label=label)
    return Sample(record, [1], [2], [1.0])


def test_rows_keep_their_classes_and_folds_share_them():
    rows = [sample(i, 0) for i in range(40)] + [sample(100 + i, 3) for i in range(8)]
    rows += [sample(200 + i, 0, "image") for i in range(40)]
    kept = pick(rows, 32)
    assert len(kept) == 32
    assert sum(row.record.modality == "image" for row in kept) == 16
    assert sum(row.record.label == 3 for row in kept) == 8
    assert pick(list(reversed(rows)), 32) == kept
    dealt = folds(kept, 4)
    assert sorted(row.record.id for fold in dealt for row in fold) == sorted(row.record.id for row in kept)
    assert [sum(row.record.label == 3 for row in fold) for fold in dealt] == [2, 2, 2, 2]
    assert len(folds(kept[:3], 5)) == 3


@pytest.fixture(scope="module")
def learner(world, tmp_path_factory):
    from so8t.models import write_thinking_tokenizer
    from so8t.train.learner import build

    folder = tmp_path_factory.mktemp("learner")
    token_ids = write_thinking_tokenizer(world / "base", folder)
    learner = build(tiny.CONFIG, world / "base", folder, token_ids, "cpu")
    generator = torch.Generator().manual_seed(5)
    for parameter in learner.text.parameters().values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return learner


@pytest.fixture(scope="module")
def rows(world, learner):
    from so8t import records
    from so8t.train.data import encode

    return [
        encode(row, learner.tokenizer, learner.vision.tokens, 10.0)
        for row in records.iterate(world / "data" / "validation.parquet")
    ]


def test_likelihood_is_that_of_the_warm_up_loss(learner, rows):
    part = [row for row in rows if not row.record.image][:5]
    with torch.no_grad():
        measured = dict(likelihood_and_class(learner, part))
        for row in part:
            even = Sample(row.record, row.prompt, row.reply, [1.0] * len(row.reply))
            alone = -float(weighted_loss(learner, [even])) / len(row.reply)
            assert measured[row.record.id][0] == pytest.approx(alone, abs=1e-4)


def phase(learner, rows, **changes) -> Alpha:
    config = tiny.CONFIG.model_copy(update={"alpha": AlphaConfig(trials=6, folds=3, **changes)})
    made = Alpha(learner, config, rows)
    made.begin()
    return made


def test_resumed_after_any_candidate_it_tries_the_same(learner, rows):
    whole = phase(learner, rows)
    for position in range(whole.steps):
        whole.step(position)()
    assert whole.tried[0].alpha == 1.0
    assert len({one.alpha for one in whole.tried}) == 6
    assert len({one.mean for one in whole.tried}) > 1, "alpha makes a difference here"
    again = phase(learner, rows)
    for position in range(again.steps):
        kept = json.loads(json.dumps(again.values()))
        again = phase(learner, rows)
        again.restore({}, kept)
        again.step(position)  # abandoned
        again.step(position)()
    assert again.tried == whole.tried
    assert learner.text.setting.alpha == 1.0


def test_the_chosen_alpha_is_the_models(learner, rows):
    made = phase(learner, rows)
    made.tried = (tried(1.0, 0.1, 0.2), tried(0.75, 0.5, 0.6))
    result = made.finish()
    assert learner.alpha == 1.0
    assert result()["alpha"] == learner.alpha == learner.text.setting.alpha == 0.75
    kept = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    learner.set_alpha(1.0)
    learner.restore(kept)
    assert learner.text.setting.alpha == 0.75
    learner.set_alpha(1.0)


def test_without_rows_it_says_so(learner):
    from so8t.errors import InputError

    with pytest.raises(InputError, match="alpha"):
        phase(learner, [])


def test_adapter_json_live_model_and_fold_agree(world, whole, tmp_path):
    out = shutil.copytree(tiny.output(whole), tmp_path / "out")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["alpha"]
    assert len(metrics["tried"]) == 5
    assert "data:image/png" in (out / "alpha.md").read_text(encoding="utf-8")
    description = json.loads((out / "adapter" / "adapter.json").read_text(encoding="utf-8"))
    assert description["alpha"] == metrics["alpha"]
    description["alpha"] = 0.6
    (out / "adapter" / "adapter.json").write_text(json.dumps(description), encoding="utf-8")
    live = load_system(world / "base", out, adapted=True, apply_to="weights")
    folded = Folded(Tensors.of_model(world / "base"), read_train_adapter(out))
    assert rotation_error(folded) < 1e-12
    name = next(iter(folded.adapter.changes))
    path = name.removesuffix(".weight")
    linear = live.text_adapters.linears[path]
    assert linear.setting.alpha == 0.6
    rotation, _, weight = linear._build()
    expected = np.concatenate([rows for _, rows in folded.slices(name)])
    assert rotation is None
    assert torch.allclose(weight, torch.as_tensor(expected).float(), atol=1e-5)


def test_killed_between_candidates_it_ends_in_the_same_bytes(world, whole, forge, tmp_path):
    for seen in ("alpha 1/5", "alpha 4/5", "alpha: measuring", "head 2/4"):
        assert forge.start(world, tmp_path).stop_when(seen, signal.SIGKILL) == -9
    assert forge.start(world, tmp_path).wait() == 0
    assert tiny.bytes_of(tmp_path) == tiny.bytes_of(whole)


@pytest.mark.parametrize("change", ["low=1.2", "high=0.9", "low=0", "high=9", "folds=1", "trials=-1"])
def test_bad_ranges_are_refused(change):
    with pytest.raises(ConfigError, match="alpha"):
        load_config(ROOT / "configs" / "demo.yaml", [f"train.alpha.{change}"])


def test_every_class_counts_in_the_objective(learner, rows):
    """With the likelihood left out, the objective is macro-F1 alone, and the other way round."""
    by_class = phase(learner, rows, likelihood_weight=0.0).step(0)()
    by_likelihood = phase(learner, rows, macro_f1_weight=0.0).step(0)()
    assert by_class["objective"] == by_class["macro_f1"]
    assert by_likelihood["objective"] == by_likelihood["log_likelihood"]
    assert math.isfinite(by_likelihood["objective"])
    assert {row.record.label for row in rows} == {int(label) for label in Label}
