"""Config of bake."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from so8t.section import Section

# A type; with the suffix it is guided by what the model's own linears read (bake.imatrix).
GUIDED = "-imat"
Quantization = Literal["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q6_K-imat", "Q5_K_M-imat", "Q4_K_M-imat"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Fold(Section):
    """Folding the adapters into a stock model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = "so8t-phi-3"
    """Model name, also of the files; llama.cpp tokenises a Phi-3's chat prompts rightly only where it contains phi-3 or
    phi3."""
    stock: bool = True
    """Also write the folded weights as a stock folder for transformers: what the pipeline publishes. The GGUF does not
    need it, and a bake alone can leave it out (`--gguf-only`)."""


class Stock(Section):
    """The untouched base as a GGUF."""

    part: Literal["text", "vision"]
    """The language model, or the image tower as it was before training."""


class Quantize(Section):
    """One quantized file."""

    type: Quantization

    @property
    def base_type(self) -> str:
        """llama.cpp's name of the type."""
        return self.type.removesuffix(GUIDED)

    @property
    def guided(self) -> bool:
        """Whether an importance matrix guides it."""
        return self.type.endswith(GUIDED)


class Imatrix(Section):
    """The importance matrix of the `-imat` types: mean x^2 of each input column, on chats of the training split."""

    chats: Annotated[int, Field(ge=1)] = 256
    """Training chats that the folded model reads."""
    tokens_max: Annotated[int, Field(ge=8, le=4096)] = 512
    """A chat is cut after so many tokens."""


class Loss(Section):
    """What a quantized file may lose against the live adapter model in fp32."""

    kl_max: Positive
    """Mean Kullback-Leibler divergence per token, nats."""
    top1_min: Share
    """Share of positions with the same most probable token."""
    perplexity_ratio_max: Annotated[float, Field(ge=1)]
    """Perplexity divided by that of the live model."""


class Quantized(Section):
    """Ceilings by type. llama.cpp #6936 measured mean KL 0.0014 (Q8_0) and 0.011 (Q5_K_M) on Llama-3-8B."""

    Q8_0: Loss = Loss(kl_max=0.01, top1_min=0.97, perplexity_ratio_max=1.02)
    Q6_K: Loss = Loss(kl_max=0.02, top1_min=0.96, perplexity_ratio_max=1.03)
    Q5_K_M: Loss = Loss(kl_max=0.05, top1_min=0.93, perplexity_ratio_max=1.05)
    Q4_K_M: Loss = Loss(kl_max=0.15, top1_min=0.88, perplexity_ratio_max=1.15)

    def of(self, name: str) -> Loss:
        """The ceilings of one type; guided or not, they are the same."""
        types = {"Q8_0": self.Q8_0, "Q6_K": self.Q6_K, "Q5_K_M": self.Q5_K_M, "Q4_K_M": self.Q4_K_M}
        return types[name.removesuffix(GUIDED)]


class Gates(Section):
    """Ceilings; a missed one fails the step."""

    texts: Annotated[int, Field(ge=1)] = 32
    """Validation chats (prompt and reference reply) whose logits are compared."""
    tokens_max: Annotated[int, Field(ge=8, le=4096)] = 256
    """A chat is cut after so many tokens."""
    tokenizer_texts: Annotated[int, Field(ge=1)] = 2000
    """Strings of which none may have other ids in llama.cpp than in transformers."""
    images: Annotated[int, Field(ge=1)] = 8
    """Validation images whose embeddings are compared."""
    fold_error_max: Positive = 1.0e-5
    """Live adapter against folded weights, both fp32: max |dlogit| / max |logit|. Rounding alone grows with the
    root of depth and width: 3e-6 at 4 layers of 1024, 5e-6 at 16; a wrong sign or side gives more than 0.1."""
    f32_logit_max: Positive = 1.0e-4
    """transformers fp32 against the F32 GGUF: max |dlogit|. llama.cpp's own distance to fp64, which grows with size
    and with position (4e-5 at 100 tokens and 4 layers of 256; 3e-4 at 200 tokens and 16 layers of 1024); the
    mildest conversion fault seen gives more than 1e-2."""
    f16_top1_min: Share = 0.999
    """F16 GGUF against the live adapter model."""
    f16_kl_max: Positive = 1.0e-5
    """F16 GGUF against the live adapter model, mean nats per token."""
    trained_kl_max: Positive = 0.5
    """Only where the base was in 4 bits while training: the live adapter on that base against the live adapter on the
    base that is baked, mean nats per token."""
    texts_differ_max: Annotated[int, Field(ge=0)] = 0
    """Texts that llama.cpp may tokenise otherwise than transformers. Above 0 only for a byte-level vocabulary by the
    rule of GPT-4o (Phi-4-mini): llama.cpp's spelling of that rule parts combining marks from their letters."""
    image_cosine_min: Share = 0.9999
    """Image embeddings of transformers and of the mmproj file, the least alike token."""
    answer_tokens_max: Annotated[int, Field(ge=1)] = 16
    """Greedy tokens of the image answer that are compared."""
    answer_regret_max: Annotated[float, Field(ge=0)] = 0.05
    """How much worse, by the live model's logits, a token of llama.cpp's image answer may be: 0 is the same answer."""
    fallbacks_max: Annotated[int, Field(ge=0)] = 0
    """Tensors of a quantized file whose columns do not fit its blocks, so that llama.cpp took another type."""
    quantized: Quantized = Quantized()
    """Ceilings by type."""


def named_phi3(name: str) -> bool:
    """Whether llama.cpp drops white space after the special tokens of a model of that name."""
    return any(word in name.lower() for word in ("phi-3", "phi3"))


class Speed(Section):
    """How memory and speed of each file are measured; they are told, and gate nothing."""

    prompt_tokens: Annotated[int, Field(ge=1, le=2048)] = 256
    """Length of the prompt that is read."""
    new_tokens: Annotated[int, Field(ge=1, le=2048)] = 32
    """Tokens that are written behind it."""
    repeats: Annotated[int, Field(ge=0)] = 3
    """Their median is told; 0 measures nothing."""


class Bake(Section):
    """Bake-in, GGUF and the gates."""

    fold: Fold = Fold()
    quantizations: tuple[Quantization, ...] = ("Q8_0", "Q4_K_M")
    """Which quantized files are made beside F16. `Q4_K_M-imat` is Q4_K_M guided by an importance matrix."""
    imatrix: Imatrix = Imatrix()
    """What that matrix is computed on."""
    speed: Speed = Speed()
    """Memory and tokens a second of each file."""
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _can_be_published(self) -> Self:
        """The tags that a training adds drop white space behind them."""
        if not named_phi3(self.fold.name):
            raise ValueError(f"fold.name {self.fold.name!r} must contain phi-3 or phi3")
        if not self.fold.stock:
            raise ValueError("fold.stock: false leaves nothing to publish; so8t step bake --gguf-only takes it alone")
        return self

    def stock(self, part: str) -> Stock:
        """The section of one part of the base's files."""
        return Stock.model_validate({"part": part})

    def quantize(self, name: str) -> Quantize:
        """The section of one quantization."""
        return Quantize.model_validate({"type": name})
