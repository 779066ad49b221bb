"""What PPO on language models stands and falls with (arXiv 2403.17031), each as a test that a slip would break."""

import gc

import pytest
import torch

from so8t import records
from so8t.batching import positions_of
from so8t.models import END_TOKEN, write_thinking_tokenizer
from so8t.train.data import encode
from so8t.train.generation import Replies, Sampling, generate
from so8t.train.learner import build
from so8t.train.pictures import look, no_pictures
from so8t.train.policy import ADAM_EPS, Policy
from so8t.train.reward import Score
from so8t.train.rollout import Judgement, response_logprobs, values_of
from tests.train import tiny


def config_of(**ppo):
    return tiny.CONFIG.model_copy(update={"ppo": tiny.CONFIG.ppo.model_copy(update=ppo)})


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return world, folder, write_thinking_tokenizer(world / "base", folder)


@pytest.fixture
def learner(place):
    world, folder, token_ids = place
    made = build(tiny.CONFIG, world / "base", folder, token_ids, "cpu")
    generator = torch.Generator().manual_seed(1)
    for parameter in made.text.parameters().values():
        # As training would leave them: nothing is at its neutral start.
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture
def samples(world, learner):
    rows = sorted(records.iterate(world / "data" / "train.parquet"), key=lambda row: row.id)
    return [encode(row, learner.tokenizer, learner.vision.tokens, 1.0) for row in rows]


@pytest.fixture
def mixed(samples):
    """Prompts of different lengths: text, image, text, image."""
    text, shown = ([s for s in samples if bool(s.record.image) == image] for image in (False, True))
    return [text[0], shown[0], text[5], shown[1]]


def even(samples, replies) -> list[Score]:
    """A reward on which the replies of a random model differ: the share of tokens with an even id."""
    tokens, mask = replies.ids[:, replies.context :], replies.reply_mask
    shares = ((tokens % 2 == 0) * mask).sum(1) / mask.sum(1)
    return [Score(share, {"even": share}) for share in shares.tolist()]


def begun(learner, samples, **ppo) -> Policy:
    policy = Policy(learner, config_of(**ppo), samples, samples)
    policy.judgement = even
    policy.begin()
    return policy


def replies_of(learner, mixed, temperature=1.0) -> tuple[Replies, object]:
    torch.manual_seed(3)
    pictures = look(learner, mixed)
    return generate(learner, mixed, pictures, Sampling(6, temperature)), pictures


@pytest.mark.parametrize("rows", [1, 3])
def test_replies_in_parts_are_those_of_the_whole(learner, mixed, rows):
    pictures = look(learner, mixed)
    whole, parts = (generate(learner, mixed, pictures, Sampling(6, 0.0, rows=n)) for n in (0, rows))
    assert torch.equal(parts.ids, whole.ids)
    assert torch.equal(parts.reply_mask, whole.reply_mask)
    assert parts.texts == whole.texts


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_the_ratio_of_the_first_minibatch_is_exactly_one(learner, samples, algorithm, micro_batch):
    policy = begun(
        learner, samples, algorithm=algorithm, group=2, micro_batch=micro_batch, minibatch=3, image_share=0.5, kl_stop=0.0
    )  # fmt: skip
    first, second = policy.step(0)(), policy.step(1)()
    assert (first["approx_kl"], first["clipfrac"]) == (0.0, 0.0)
    assert second["approx_kl"] != 0
    # The reference is the policy as it was: nothing lies between them yet.
    assert first["kl"] == 0
    policy.step(2)()
    policy.step(3)()
    assert policy.step(4)()["kl"] != 0


def test_padding_on_the_left_changes_nothing(learner, mixed):
    replies, pictures = replies_of(learner, mixed)
    together, states = response_logprobs(learner, replies.ids, replies.mask, replies.context, pictures, 1.0)
    for row, sample in enumerate(mixed):
        length = len(sample.prompt)
        ids = replies.ids[row : row + 1, replies.context - length :]
        alone, own = response_logprobs(learner, ids, torch.ones_like(ids), length, look(learner, [sample]), 1.0)
        real = replies.reply_mask[row].bool()
        assert torch.allclose(alone[0][real], together[row][real], atol=1e-4)
        assert torch.allclose(own[0][real], states[row][real], atol=1e-3)
    assert len({len(sample.prompt) for sample in mixed}) > 1


def test_positions_count_real_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    assert positions_of(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 3]]


def test_logprobs_are_those_of_the_temperature_and_of_the_response_only(learner, mixed):
    replies, pictures = replies_of(learner, mixed)
    widths = []
    hook = learner.model.lm_head.register_forward_hook(lambda module, given, made: widths.append(made.shape[1]))
    at_half, states = response_logprobs(learner, replies.ids, replies.mask, replies.context, pictures, 0.5)
    hook.remove()
    response = replies.ids[:, replies.context :]
    assert widths == [response.shape[1]]
    expected = torch.log_softmax(learner.model.lm_head(states).double() / 0.5, -1).gather(2, response[..., None])[
        ..., 0
    ]
    assert torch.allclose(at_half.double(), expected, atol=1e-4)


def test_replies_are_drawn_at_the_temperature_whatever_the_base_says(learner, samples, monkeypatch):
    """The mean log-probability of first tokens is minus the entropy of the distribution that they came from."""
    prompt = [next(s for s in samples if not s.record.image)] * 400
    learner.text.parameters()["token_rows.lm_head"].data *= 20
    monkeypatch.setattr(learner.model.generation_config, "top_k", 1)
    torch.manual_seed(0)
    nothing = no_pictures(torch.zeros(400, 1))
    drawn = generate(learner, prompt, nothing, Sampling(1, 0.7))
    logprobs, states = response_logprobs(learner, drawn.ids, drawn.mask, drawn.context, nothing, 0.7)
    p = torch.softmax(learner.model.lm_head(states[:1, 0]).double() / 0.7, -1)[0]
    mean, spread = float((p * p.log()).sum()), float((p * p.log() ** 2).sum() - (p * p.log()).sum() ** 2) ** 0.5
    assert spread > 0.2
    assert abs(float(logprobs.mean()) - mean) < 4 * spread / 400**0.5
    greedy = generate(learner, prompt[:1], nothing.rows(torch.tensor([0])), Sampling(1, 0.0))
    assert int(greedy.ids[0, -1]) == int(p.argmax())


def test_a_reply_ends_at_its_first_end_token_and_one_that_does_not_pays(learner, mixed):
    endless, pictures = replies_of(learner, mixed, temperature=0.0)
    assert not endless.ended.any()
    learner.stop = [int(endless.ids[0, endless.context + 2])]
    replies = generate(learner, mixed, pictures, Sampling(6, 0.0))
    assert replies.ended[0]
    assert replies.reply_mask[0].tolist()[:4] == [1, 1, 1, 0][: replies.reply_mask.shape[1]]
    judge = Judgement(tiny.CONFIG.reward, 0.75)
    ended, not_ended = (
        judge(mixed[:1], Replies(r.ids[:1], r.mask[:1], r.context, r.reply_mask[:1], torch.tensor([e]), ["nothing"]))[0]
        for r, e in ((replies, True), (endless, False))
    )
    assert ended.total - not_ended.total == 0.75
    assert (ended.terms["missing_end"], not_ended.terms["missing_end"]) == (0.0, -0.75)
    assert END_TOKEN not in "".join(replies.texts)


def test_dropout_stays_off_while_gradients_are_made(learner, mixed):
    replies, pictures = replies_of(learner, mixed)
    arguments = (learner, replies.ids, replies.mask, replies.context, pictures, 1.0)
    plain, _ = response_logprobs(*arguments)
    for module in learner.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.9
    with learner.backward_pass():
        again, _ = response_logprobs(*arguments)
    assert torch.equal(plain, again)


def test_the_critic_starts_at_zero_on_the_shared_trunk(learner, mixed):
    replies, pictures = replies_of(learner, mixed)
    _, states = response_logprobs(learner, replies.ids, replies.mask, replies.context, pictures, 1.0)
    assert not values_of(learner, states).any()
    assert states.shape == (4, 6, learner.value_head.in_features)


def test_what_is_trained_and_what_stands_still(learner, samples):
    policy = begun(learner, samples, image_share=0.5, kl_stop=0.0)
    assert {group["eps"] for group in policy.optimizer.adam.param_groups} == {ADAM_EPS} == {1e-5}
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    reference = {name: tensor.clone() for name, tensor in policy.reference.items()}
    for position in range(4):
        policy.step(position)()
    moved = {name for name, tensor in learner.tensors().items() if not torch.equal(tensor, before[name])}
    adapters = {f"text.{name}" for name in learner.text.parameters() if not name.startswith("token_rows")}
    assert moved == adapters | {"value_head"}
    assert all(torch.equal(tensor, reference[name]) for name, tensor in policy.reference.items())


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_micro_batches_add_up_to_the_same_gradient(learner, samples, algorithm):
    found = []
    for micro_batch in (1, 2, 4):
        policy = begun(
            learner, samples, algorithm=algorithm, group=2, image_share=0.5, minibatch=4, micro_batch=micro_batch
        )
        torch.manual_seed(5)
        metrics = policy.step(0)
        found.append({n: p.grad.clone() for n, p in policy.optimizer.named.items() if p.grad is not None})
        assert metrics
    assert max(float(gradient.abs().max()) for gradient in found[0].values()) > 1e-3
    for other in found[1:]:
        for name, gradient in found[0].items():
            assert torch.allclose(gradient, other[name], rtol=1e-3, atol=2e-6), name


def test_images_are_merged_as_transformers_does_and_only_where_they_belong(learner, mixed):
    replies, pictures = replies_of(learner, mixed)
    shown = torch.tensor([1, 3])
    _, ours = response_logprobs(
        learner, replies.ids[shown], replies.mask[shown], replies.context, pictures.rows(shown), 1.0
    )
    pixels = learner.pixels([mixed[1], mixed[3]])
    theirs = learner.hidden(replies.ids[shown], replies.mask[shown], pixels)[:, replies.context - 1 : -1]
    assert torch.allclose(ours, theirs, atol=1e-5)
    swapped = type(pictures)(pictures.features, torch.tensor([-1, 1, -1, 0]))
    one, other = (
        response_logprobs(learner, replies.ids, replies.mask, replies.context, p, 1.0)[0] for p in (pictures, swapped)
    )
    assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert not torch.allclose(one[[1, 3]], other[[1, 3]])


def test_an_image_token_drawn_by_the_policy_is_a_token_like_any_other(learner, mixed):
    replies, pictures = replies_of(learner, mixed)
    drawn = replies.ids.clone()
    drawn[:, replies.context + 1] = learner.vision.image_token_id
    logprobs, _ = response_logprobs(learner, drawn, replies.mask, replies.context, pictures, 1.0)
    assert torch.isfinite(logprobs).all()


def test_a_picture_that_is_asked_about_twice_is_looked_at_once(learner, mixed):
    pictures = look(learner, [mixed[1], mixed[0], mixed[3], mixed[1]])
    assert pictures.image_of.tolist() == [0, -1, 1, 0]
    assert pictures.features.shape[:2] == (2, learner.vision.tokens)


def test_the_static_cache_gives_the_same_tokens(learner, mixed):
    pictures = look(learner, mixed)
    dynamic, static = (generate(learner, mixed, pictures, Sampling(8, 0.0, kind)) for kind in ("dynamic", "static"))
    assert torch.equal(dynamic.ids, static.ids)
    assert len(set(static.ids[:, static.context :].flatten().tolist())) > 1


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_no_cache_outlives_generation(learner, mixed, kind):
    from transformers import Cache

    generate(learner, mixed, look(learner, mixed), Sampling(4, 1.0, kind))
    gc.collect()
    assert not [one for one in gc.get_objects() if issubclass(type(one), Cache)]


def test_grpo_compares_replies_to_one_prompt_and_has_no_critic(learner, samples):
    policy = begun(learner, samples, algorithm="grpo", group=2, image_share=0.5)
    assert not any(name.startswith("value_head") for name in policy.optimizer.named)
    ids = [sample.record.id for sample in policy._prompts(0)]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    policy.step(0)()
    buffer = policy.buffer
    assert buffer.values is None
    assert buffer.returns is None
    first_tokens = buffer.advantages[:, 0].view(2, 2)
    assert first_tokens.any()
    assert torch.allclose(first_tokens.sum(1), torch.zeros(2), atol=1e-5)
    assert torch.equal(buffer.advantages, buffer.advantages[:, :1] * buffer.reply_mask)
