"""Config of four_class."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from so8t.artifacts import hash_file
from so8t.errors import InputError
from so8t.section import Section, UserPath
from so8t.so8.config import Adapter

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Data(Section):
    """Labelled JSONL files instead of the preprocessed rows; they are used as they are, and by content."""

    train_data: tuple[UserPath, ...] = ()
    """JSONL files to learn from. None: the text rows that preprocess made."""
    val_data: tuple[UserPath, ...] = ()
    """JSONL files to steer by; no prompt may be in both."""
    prompt_key: str = "prompt"
    """Key of a line's text."""
    label_key: str = "label"
    """Key of a line's class: ALLOW, ESCALATION, DENY or REFUSE in any case, or 0 to 3."""
    sha256: tuple[str, ...] = ()
    """Hashes of all files in order; filled in by itself, and checked where you give them."""
    absent_class: Literal["refuse", "warn"] = "refuse"
    """What to do where a class has no row to learn from: it could never be learnt."""

    @model_validator(mode="after")
    def _both(self) -> "Data":
        if bool(self.train_data) != bool(self.val_data):
            raise ValueError("train_data and val_data come together")
        return self

    def pinned(self) -> "Data":
        """With the files' hashes, so that their content decides the key; InputError if it is not the one given."""
        files = [*self.train_data, *self.val_data]
        absent = [str(path) for path in files if not path.is_file()]
        if absent:
            raise InputError(f"no file {', '.join(absent)}", "the files of four_class.data", "mend the path")
        found = tuple(hash_file(path) for path in files)
        if self.sha256 and self.sha256 != found:
            raise InputError(f"four_class.data has the hashes {found}", f"{self.sha256}", "restore the files")
        return self.model_copy(update={"sha256": found})


class Loss(Section):
    """Focal loss with class weights."""

    focal_gamma: NotNegative = 2.0
    """Exponent (Lin et al. 2017, arXiv 1708.02002); 0 is weighted cross-entropy."""
    class_weights: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)] = (1.0, 3.0, 5.0, 5.0)
    """Weights of ALLOW, ESCALATION, DENY, REFUSE."""
    balanced: bool = True
    """Multiply them by the inverse class frequency."""


class Decision(Section):
    """How probabilities become a decision; fitted on the validation rows."""

    unsafe_allow_max: Share = 0.02
    """Bound on the share of ESCALATION, DENY and REFUSE rows that are allowed."""
    confidence: Share = 0.9
    """With which the bound holds for new rows like the validation rows; 0.9 and a bound of 0.02 need 114 validation rows
    of those classes, and with fewer nothing is allowed."""


class FourClass(Section):
    """The four-class classifier: a frozen base, adapters, a head on the masked mean of the hidden states."""

    seed: int = 0
    """Seed of weights and order."""
    data: Data = Data()
    adapter: Adapter = Adapter(
        targets=("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"), output=False, rank=32
    )
    loss: Loss = Loss()
    decision: Decision = Decision()
    pooling: Literal["mean", "wide"] = "mean"
    """What the head reads: the mean of the last hidden states over the prompt's tokens; or, for a base that knows little,
    mean and maximum of these and of the embeddings."""
    max_seq_length: Annotated[int, Field(ge=8)] = 2048
    """Tokens of a prompt in its chat template; what is longer is cut, counted, and never allowed when it is judged."""
    epochs: AtLeastOne = 1
    """Passes over the training rows."""
    micro_batch: AtLeastOne = 1
    """Rows a forward pass while training."""
    gradient_accumulation_steps: AtLeastOne = 16
    """Forward passes an optimizer step."""
    evaluation_batch: AtLeastOne = 8
    """Rows a forward pass while measuring."""
    evaluations_per_epoch: AtLeastOne = 2
    """Each measures macro-F1 on the validation rows, keeps the best state, and writes a checkpoint."""
    learning_rate: Positive = 1e-4
    """Peak for the adapters; a cosine to zero after the warm-up."""
    head_learning_rate: Positive = 1e-3
    """Peak for the head, which starts at zero."""
    warmup_ratio: Share = 0.1
    """Share of the steps in which the rates rise."""
    weight_decay: NotNegative = 0.01
    """Of all that is trained but the head's bias."""
    adam_beta1: Beta = 0.9
    """Of AdamW."""
    adam_beta2: Beta = 0.999
    """Of AdamW."""
    adam_epsilon: Positive = 1e-8
    """Of AdamW."""
    max_grad_norm: Positive = 1.0
    """Joint gradient norm above which it is scaled down."""

    def pinned(self) -> "FourClass":
        """With the content of local files in it."""
        return self.model_copy(update={"data": self.data.pinned()}) if self.data.train_data else self
