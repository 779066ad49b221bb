"""Config of train."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from so8t.section import Repository, Section
from so8t.so8.config import Adapter

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Vision(Section):
    """SO8ViT: image tower, projector, their SO(8) adapters, and the tower's pretraining."""

    pretrained: Repository | None = None
    """A SigLIP whose tower is taken over and stays frozen; without one it is trained here, from scratch. Wants the
    geometry below to be its own, epochs: 0, and preprocess to make pictures of its size with its resampling."""
    hidden: AtLeastOne = 768
    """Width."""
    layers: AtLeastOne = 12
    """Blocks."""
    heads: AtLeastOne = 12
    """Attention heads."""
    intermediate: AtLeastOne = 3072
    """Width of the MLP."""
    image_size: AtLeastOne = 32
    """Edge of the square image in pixels, as preprocess makes it."""
    patch_size: AtLeastOne = 8
    """Edge of a patch in pixels. A rest of the image that fills no patch is not seen: floor(image_size / patch_size)^2
    image tokens."""
    adapters: bool = True
    """SO(8) rotations on the tower's linears, trained in the warm-up."""
    epochs: Count = 10
    """Passes over the training images in which tower and projector learn to name what is shown."""
    batch: AtLeastOne = 64
    """Images a step."""
    learning_rate: Positive = 5e-4
    """Peak, reached after a tenth of the steps, then a cosine to zero."""
    weight_decay: NotNegative = 0.05
    """Of weight matrices."""
    noise: NotNegative = 0.1
    """Standard deviation of the noise added to normalised pixels while pretraining."""
    shift: Count = 2
    """Images are moved by up to so many pixels each way while pretraining."""

    @model_validator(mode="after")
    def _consistent(self) -> "Vision":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not divisible by {self.heads} heads")
        if self.patch_size > self.image_size:
            raise ValueError(f"a patch of {self.patch_size} pixels does not fit into an image of {self.image_size}")
        odd = [name for name in ("hidden", "intermediate") if getattr(self, name) % 8]
        if self.adapters and odd:
            raise ValueError(f"{', '.join(odd)} must be divisible by 8, the width of a rotation")
        if self.pretrained is not None and self.epochs:
            raise ValueError(f"epochs is {self.epochs}, but a pretrained tower stays as it is: write epochs: 0")
        return self


class Align(Section):
    """The projector alone, through the frozen base: plain captions of the images, before anything else learns."""

    steps: Count = 500
    """Optimizer steps; 0 leaves it out."""
    batch: AtLeastOne = 32
    """Image and audio samples a step."""
    micro_batch: Count = 4
    """Samples a forward pass; see warmup."""
    learning_rate: Positive = 1e-3
    """Peak, after a tenth of the steps; then a cosine to zero."""
    max_grad_norm: Positive = 1.0
    """Gradient norm above which it is scaled down."""


class Warmup(Section):
    """Supervised training of adapters, token rows and projector on the reference replies."""

    steps: Count = 1000
    """Optimizer steps."""
    batch_text: Count = 16
    """Text samples a step."""
    batch_image: Count = 16
    """Image and audio samples a step."""
    micro_batch: Count = 2
    """Samples a forward pass; a step's gradient is the same sum whatever this is, up to rounding. 0 takes the largest
    that fits by so8t plan. Halved, and recorded, where memory runs out."""
    learning_rate: Positive = 5e-4
    """Peak for rotations and low-rank terms, after a tenth of the steps; then a cosine to a tenth."""
    rows_learning_rate: Positive = 5e-4
    """Peak for the token rows."""
    projector_learning_rate: Positive = 1e-4
    """Peak for the projector."""
    weight_decay: NotNegative = 0.0
    """Of rotations and low-rank terms; decay pulls a rotation towards the identity."""
    max_grad_norm: Positive = 1.0
    """Joint gradient norm above which it is scaled down."""
    key_weight: Positive = 10.0
    """Weight of class and answer tokens in the loss; most of a reply is fixed text that is learnt at once."""
    alpha_start: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Alpha of the rotations at the first step; it rises to 1 over the ramp and stays there."""
    alpha_ramp: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps over which alpha rises."""
    max_tokens: AtLeastOne = 2048
    """Longer samples (prompt and reply) are left out, and counted."""


class Head(Section):
    """The four-class head on the masked mean of the prompt's hidden states."""

    steps: Count = 400
    """Full-batch optimizer steps on cached features."""
    learning_rate: Positive = 1e-2
    """Peak, after a tenth of the steps; then a cosine to zero."""
    weight_decay: NotNegative = 1e-2
    """Of the head's weight."""
    focal_gamma: NotNegative = 2.0
    """Exponent of the focal loss (Lin et al. 2017); 0 is weighted cross-entropy."""
    class_weights: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)] = (1.0, 3.0, 5.0, 5.0)
    """Weights of ALLOW, ESCALATION, DENY, REFUSE, multiplied by the inverse class frequency."""


class Reward(Section):
    """Weights of the reward's terms; each term is logged by name."""

    well_formed: NotNegative = 1.0
    """Cost of a reply that is not in the thinking format."""
    right_class: NotNegative = 1.0
    """Worth of the right class."""
    unsafe_allow: NotNegative = 2.0
    """Cost of ALLOW where the class is another: the highest of all."""
    over_refusal: NotNegative = 0.5
    """Cost of another class where ALLOW is right."""
    quality: NotNegative = 1.0
    """Worth of an answer equal to the reference (character F-score)."""
    repetition: NotNegative = 1.0
    """Cost of a reply that says the same again and again."""
    echo: NotNegative = 1.0
    """Cost of an answer that gives the prompt back."""
    classifier: NotNegative = 0.0
    """Worth of a class that the four-class model finds likely for the prompt too; above 0 the pipeline trains that model
    (section four_class) before."""


class Anchor(Section):
    """Watches for forgetting: how likely the policy still finds the base's own answers to neutral prompts."""

    prompts: Count = 16
    """ALLOW text prompts of the training rows that the bare base answers greedily before the first update; 0: none."""
    max_new_tokens: AtLeastOne = 64
    """Longest such answer."""
    ratio_max: Annotated[float, Field(gt=1)] = 2.0
    """The answers' perplexity may become so many times what it was before the first update."""


class Rollback(Section):
    """Going back to the newest state that a review found good, at half the learning rate."""

    drop: NotNegative = 0.5
    """The held-out reward may fall so far below the best before that happens."""
    limit: Count = 3
    """So often; the next failure ends the phase with the good state."""


class Ppo(Section):
    """Policy optimisation on text and image prompts: PPO (Schulman et al. 2017; Huang et al. 2024, arXiv 2403.17031)
    or GRPO (Shao et al. 2024, arXiv 2402.03300)."""

    algorithm: Literal["ppo", "grpo"] = "ppo"
    """PPO learns a critic and estimates advantages by GAE; GRPO compares the replies to one prompt with each other."""
    group: Annotated[int, Field(ge=2)] = 8
    """GRPO: replies a prompt; it divides the batch."""
    group_std: bool = True
    """GRPO: divide by the group's standard deviation; Dr. GRPO (arXiv 2503.20783) finds that this favours prompts on
    which the replies hardly differ."""
    updates: Count = 500
    """Rollouts, each followed by its optimizer steps."""
    batch: AtLeastOne = 32
    """Replies a rollout."""
    image_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the prompts that show an image or a spectrogram; tower and projector stand still."""
    epochs: AtLeastOne = 2
    """Passes over a rollout."""
    minibatch: AtLeastOne = 8
    """Replies an optimizer step."""
    micro_batch: Count = 2
    """Replies a forward pass; a step's gradient is the same sum whatever this is, up to rounding. 0 takes the largest
    that fits by so8t plan. Halved, and recorded, where memory runs out."""
    cache: Literal["dynamic", "static"] = "dynamic"
    """KV cache while generating: one that grows, or one of a fixed size, which a GPU runs without launching each
    kernel anew."""
    max_new_tokens: AtLeastOne = 256
    """Longest reply."""
    temperature: Positive = 1.0
    """Of sampling, and of the probabilities that are trained."""
    learning_rate: Positive = 1e-4
    """Of the adapters, falling linearly to a tenth."""
    value_learning_rate: Positive = 1e-3
    """Of the value head."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount a token."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Lambda of generalized advantage estimation."""
    clip: Positive = 0.2
    """Clip range of the probability ratio."""
    value_clip: Positive = 0.2
    """Clip range of the value."""
    value_coefficient: NotNegative = 0.1
    """Share of the value loss."""
    max_grad_norm: Positive = 1.0
    """Joint gradient norm above which it is scaled down."""
    kl_coefficient: NotNegative = 0.05
    """Price of one nat of divergence from the warm-up policy, at the start."""
    kl_target: Positive = 0.1
    """The controller steers the mean divergence a token towards this (nats)."""
    kl_adaptive: bool = True
    """Whether there is a controller; without one the price stays."""
    kl_stop: NotNegative = 0.1
    """An update ends before a step whose minibatch has moved further than this from the policy that generated it
    (approximate KL a token, nats); 0 never ends one."""
    whiten_rewards: bool = False
    """Scale per-token rewards to unit variance."""
    missing_end_penalty: NotNegative = 1.0
    """Taken from the score of a reply that does not end by itself."""
    evaluation_prompts: AtLeastOne = 64
    """Validation prompts on which the reward is compared before and after, sampled with the same seeds."""
    evaluation_every: Count = 25
    """Updates between reviews: held-out reward and anchors, which decide about rolling back; 0: at the end only."""
    anchor: Anchor = Anchor()
    rollback: Rollback = Rollback()

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> "Ppo":
        if self.algorithm == "grpo" and self.batch % self.group:
            raise ValueError(f"batch {self.batch} is no multiple of group {self.group}")
        return self


class Alpha(Section):
    """How far the language model's rotations are turned in the end: found on held-out rows after PPO."""

    trials: Count = 12
    """Candidates, alpha = 1 among them; each costs one pass over the rows. 0 leaves alpha at 1."""
    low: Positive = 0.5
    """Smallest candidate."""
    high: Annotated[float, Field(le=4)] = 1.5
    """Largest candidate."""
    rows: AtLeastOne = 256
    """Validation rows at most, text and images."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Parts of the rows; the gain over alpha = 1 must exceed its standard error between them."""
    likelihood_weight: NotNegative = 1.0
    """Of the mean log-likelihood (nats) of a reference reply's token in the objective."""
    macro_f1_weight: NotNegative = 1.0
    """Of the four-class macro-F1 in the objective."""

    @model_validator(mode="after")
    def _holds_one(self) -> Self:
        if not self.low <= 1 <= self.high or self.low == self.high:
            raise ValueError(f"from {self.low:g} to {self.high:g} is no range around alpha = 1: low <= 1 <= high")
        return self


class Train(Section):
    """Adapters, tower, warm-up, PPO, four-class head."""

    seed: int = 0
    """Seed of weights, order and sampling."""
    adapter: Adapter = Adapter()
    vision: Vision = Vision()
    align: Align = Align()
    warmup: Warmup = Warmup()
    ppo: Ppo = Ppo()
    reward: Reward = Reward()
    alpha: Alpha = Alpha()
    head: Head = Head()

    def within(self, micro_batch_max: int, save_memory: bool) -> "Train":
        """For a machine with less memory: lower micro-batches (0 finds its own as ever), activations computed twice.

        The effective batch stays, so this is the same training up to rounding.
        """
        changes: dict[str, Section] = {}
        for name in ("align", "warmup", "ppo"):
            section = getattr(self, name)
            if micro_batch_max and section.micro_batch > micro_batch_max:
                changes[name] = section.model_copy(update={"micro_batch": micro_batch_max})
        if save_memory and not self.adapter.gradient_checkpointing:
            changes["adapter"] = self.adapter.model_copy(update={"gradient_checkpointing": True})
        return self.model_copy(update=changes) if changes else self


def with_values(train: Train, values: Mapping[str, float]) -> Train:
    """The config with other values by name, checked like a file."""
    data = train.model_dump()
    for name, value in values.items():
        place, _, key = name.partition(".")
        data[place][key] = value
    return Train.model_validate(data)
