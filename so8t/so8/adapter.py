"""SO(8) adapters around the linears of a frozen model, and trainable rows for added tokens.

Column vectors: y = R_out (W + s B A) R_in x, with R = Cayley(alpha A) block-diagonal over groups of
8 consecutive channels. The bias, where there is one, is not rotated. The model's own code is not
touched: a linear is replaced by a module with the same `weight` and `bias`, or, where it is quantised, by
one that asks it for its product.

    P.so8_out [out/8, 28]   P.so8_in [in/8, 28]   P.lora_a [rank, in]   P.lora_b [out, rank]
    token_rows.embed_tokens [k, hidden]           token_rows.lm_head [k, hidden]    in order of the token ids
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from so8t.errors import InputError
from so8t.so8.generators import GENERATORS, blocks_of
from so8t.so8.rotation import RotationMap, rotate, rotate_columns, rotate_rows, rotations_of

ApplyTo = Literal["activations", "weights"]
PARTS = ("so8_out", "so8_in", "lora_a", "lora_b")
EMBED_ROWS, HEAD_ROWS = "token_rows.embed_tokens", "token_rows.lm_head"


@dataclass(frozen=True)
class Placement:
    """What is put on one linear."""

    output: bool = True
    input: bool = False
    rank: int = 0


@dataclass
class Setting:
    """Shared by all adapted modules of one model."""

    alpha: float = 1.0
    lora_scale: float = 1.0
    enabled: bool = True
    cached: bool = False
    merged: bool = False
    rotation_map: RotationMap = "cayley"
    # `activations` never builds a second weight (quantised bases, small memory); `weights` is far
    # cheaper where a batch has more tokens than the weight has columns. They agree to rounding.
    apply_to: ApplyTo = "activations"

    @property
    def live(self) -> bool:
        """Whether there is anything to add to what the weights say."""
        return self.enabled and not self.merged


class So8Linear(nn.Module):
    """A linear with rotations on its output and input side and a low-rank term, each optional."""

    weight: Tensor
    so8_out: nn.Parameter | None
    so8_in: nn.Parameter | None
    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None

    def __init__(self, linear: nn.Linear, placement: Placement, setting: Setting) -> None:
        super().__init__()
        self.setting, self.bias = setting, linear.bias
        # A subclass has another way to multiply, and its weight may be packed; only its bias is taken from it.
        self.inner = None if type(linear) is nn.Linear else linear
        if self.inner is None:
            self.weight = linear.weight
        else:
            self.inner.register_parameter("bias", None)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._plain: Tensor | None = None
        self._kept: tuple[Tensor | None, Tensor | None, Tensor | None] | None = None
        device = linear.weight.device

        def zeros(wanted: bool, *shape: int) -> nn.Parameter | None:
            return nn.Parameter(torch.zeros(*shape, device=device)) if wanted else None

        self.so8_out = zeros(placement.output, blocks_of(self.out_features) if placement.output else 0, GENERATORS)
        self.so8_in = zeros(placement.input, blocks_of(self.in_features) if placement.input else 0, GENERATORS)
        self.lora_a = zeros(placement.rank > 0, placement.rank, self.in_features)
        self.lora_b = zeros(placement.rank > 0, self.out_features, placement.rank)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if not self.setting.live:
            return self._with_bias(self._product(x)) if self.inner else functional.linear(x, self.weight, self.bias)
        rotation_out, rotation_in, weight = self._kept if self._kept is not None else self._build()
        if weight is not None:
            return functional.linear(x, weight, self.bias)
        if rotation_in is not None:
            x = rotate(rotation_in, x)
        y = self._product(x)
        if self.lora_a is not None and self.lora_b is not None:
            low = functional.linear(functional.linear(x.float(), self.lora_a), self.lora_b)
            y = y + self.setting.lora_scale * low.to(y.dtype)
        if rotation_out is not None:
            y = rotate(rotation_out, y)
        return self._with_bias(y)

    def _product(self, x: Tensor) -> Tensor:
        if self.inner is None:
            return functional.linear(x, self.weight)
        y: Tensor = self.inner(x)
        return y

    def _with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias

    def _build(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if self.setting.apply_to == "weights":
            return None, None, self._folded(torch.float32)
        out = None if self.so8_out is None else self._rotations(self.so8_out)
        return out, None if self.so8_in is None else self._rotations(self.so8_in), None

    def _rotations(self, entries: Tensor) -> Tensor:
        return rotations_of(entries, self.setting.alpha, self.setting.rotation_map)

    def _folded(self, dtype: torch.dtype) -> Tensor:
        """R_out (W + s B A) R_in [out, in], computed in `dtype`, in the weight's own type."""
        weight = self.weight.to(dtype)
        if self.lora_a is not None and self.lora_b is not None:
            weight = weight + self.setting.lora_scale * (self.lora_b.to(dtype) @ self.lora_a.to(dtype))
        if self.so8_in is not None:
            weight = rotate_columns(weight, self._rotations(self.so8_in.to(dtype)))
        if self.so8_out is not None:
            weight = rotate_rows(self._rotations(self.so8_out.to(dtype)), weight)
        return weight.to(self.weight.dtype)

    def merge(self) -> None:
        """Put the folded weight, from float64 and cast once, in the place of the plain one, which is kept on the host."""
        folded = self._folded(torch.float64)
        self._plain, self.weight.data = self.weight.data.cpu(), folded

    def unmerge(self) -> None:
        """Put the plain weight back, the very bytes; nothing where none was taken away."""
        if self._plain is not None:
            self.weight.data, self._plain = self._plain.to(self.weight.device), None

    def keep(self, on: bool) -> None:
        """Build the rotations (or the weight) once and reuse them, or stop doing so."""
        self._kept = None
        if on:
            with torch.no_grad():
                self._kept = self._build()


class _Rows(nn.Module):
    """Trainable rows in the place of some of a weight's [vocabulary, hidden]."""

    weight: Tensor
    token_ids: Tensor

    def __init__(self, module: nn.Embedding | nn.Linear, token_ids: Tensor, setting: Setting) -> None:
        super().__init__()
        self.weight, self.setting = module.weight, setting
        self.rows = nn.Parameter(module.weight.detach()[token_ids].float().clone())
        self.register_buffer("token_ids", token_ids, persistent=False)
        self._plain: Tensor | None = None

    def merge(self) -> None:
        """Write the rows into the weight; the plain ones are kept."""
        self._plain = self.weight.data[self.token_ids]
        self.weight.data[self.token_ids] = self.rows.detach().to(self.weight.dtype)

    def unmerge(self) -> None:
        """Write the plain rows back."""
        if self._plain is not None:
            self.weight.data[self.token_ids], self._plain = self._plain, None


class RowsEmbedding(_Rows):
    """An embedding of which the rows of the added tokens are replaced."""

    row_of: Tensor

    def __init__(self, embedding: nn.Embedding, token_ids: Tensor, setting: Setting) -> None:
        super().__init__(embedding, token_ids, setting)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        row_of = torch.full((embedding.num_embeddings,), -1, dtype=torch.long, device=token_ids.device)
        row_of[token_ids] = torch.arange(len(token_ids), device=token_ids.device)
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., hidden]."""
        plain = functional.embedding(ids, self.weight)
        if not self.setting.live:
            return plain
        row = self.row_of[ids]
        added = functional.embedding(row.clamp(min=0), self.rows).to(plain.dtype)
        return torch.where((row >= 0).unsqueeze(-1), added, plain)


class RowsHead(_Rows):
    """An output projection of which the rows of the added tokens are replaced."""

    def __init__(self, head: nn.Linear, token_ids: Tensor, setting: Setting) -> None:
        super().__init__(head, token_ids, setting)
        self.bias = None
        self.in_features, self.out_features = head.in_features, head.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]."""
        # On a CPU, torch 2.13 copies a bf16 weight into fp32 for a slice: 376 MiB for Phi-3.5's head.
        x = x.contiguous()
        logits = functional.linear(x, self.weight)
        if not self.setting.live:
            return logits
        added = functional.linear(x.to(self.rows.dtype), self.rows).to(logits.dtype)
        return logits.index_copy(-1, self.token_ids, added)


class Adapters:
    """All adapters of one model part, by the names that the adapter file uses."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.linears: dict[str, So8Linear] = {}
        self.embedding: RowsEmbedding | None = None
        self.head: RowsHead | None = None

    def attach(self, root: nn.Module, prefix: str, placements: Mapping[str, Placement]) -> None:
        """Wrap linears under `root`; a placement's name is `prefix` + the path below `root`."""
        for name, placement in sorted(placements.items()):
            path = name.removeprefix(prefix)
            try:
                linear = root.get_submodule(path)
            except AttributeError:
                raise InputError(
                    f"the model has no module {path!r}", f"the linear that the adapter names {name!r}"
                ) from None
            if not isinstance(linear, nn.Linear):
                raise InputError(f"{path!r} is a {type(linear).__name__}", "an unadapted nn.Linear")
            if self.setting.apply_to == "weights" and not linear.weight.is_floating_point():
                raise InputError(
                    f"apply_to: weights, and {path!r} is quantised", "a weight that can be multiplied out",
                    "set apply_to: activations, which never builds a second weight",
                )  # fmt: skip
            linear.requires_grad_(False)
            _replace(root, path, adapted := So8Linear(linear, placement, self.setting))
            self.linears[name] = adapted

    def attach_rows(self, text: nn.Module, with_head: nn.Module, token_ids: list[int]) -> None:
        """Give the ids rows of their own in `text.embed_tokens` and `with_head.lm_head`."""
        embedding, head = text.get_submodule("embed_tokens"), with_head.get_submodule("lm_head")
        if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
            raise InputError(f"embed_tokens is a {type(embedding).__name__}", "an unadapted embedding and head")
        ids = torch.tensor(token_ids, dtype=torch.long, device=embedding.weight.device)
        self.embedding, self.head = RowsEmbedding(embedding, ids, self.setting), RowsHead(head, ids, self.setting)
        _replace(text, "embed_tokens", self.embedding)
        _replace(with_head, "lm_head", self.head)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every trainable tensor by its file name, in a fixed order."""
        found = {
            f"{name}.{part}": parameter
            for name, linear in self.linears.items()
            for part in PARTS
            if (parameter := getattr(linear, part)) is not None
        }
        if self.embedding is not None and self.head is not None:
            found |= {EMBED_ROWS: self.embedding.rows, HEAD_ROWS: self.head.rows}
        return found

    def init_low_rank(self, generator: torch.Generator) -> None:
        """Draw lora_a (Hu et al. 2021, section 4.1: A random, B zero, so that the term starts at zero)."""
        for linear in self.linears.values():
            if linear.lora_a is not None:
                drawn = torch.randn(linear.lora_a.shape, generator=generator) / math.sqrt(linear.in_features)
                linear.lora_a.data.copy_(drawn)

    def state(self) -> dict[str, Tensor]:
        """A copy of every trainable tensor, fp32 on the CPU: what the adapter file holds."""
        return {name: p.detach().float().cpu().clone() for name, p in self.parameters().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state; InputError where names or shapes differ."""
        assert not self.setting.merged, "unmerge first"
        parameters = self.parameters()
        if set(state) != set(parameters):
            odd = sorted(set(state) ^ set(parameters))
            raise InputError(
                f"adapter tensors differ: {', '.join(odd[:4])}", f"exactly the {len(parameters)} of this model"
            )
        for name, parameter in parameters.items():
            if state[name].shape != parameter.shape:
                raise InputError(f"{name} has the shape {tuple(state[name].shape)}", f"{tuple(parameter.shape)}")
            parameter.data.copy_(state[name])
        if self.setting.cached:
            self.cache()

    @torch.no_grad()
    def merge(self) -> None:
        """Fold everything into the base's own weights, each in float64 and cast once; until `unmerge` the model is plain.

        The plain weights are kept on the host: what was rounded away cannot be computed back. InputError for a
        quantised base, or where a folded weight is not finite; then nothing has changed.
        """
        assert not self.setting.merged, "merged already"
        for name, linear in self.linears.items():
            if linear.inner is not None:
                raise InputError(
                    f"{name} is a {type(linear.inner).__name__}: what is folded would be rounded to 4 bits again, "
                    "which leaves nothing of a model",
                    "a base in float32 or bfloat16",
                    "load the base unquantised and merge there, or keep the adapters live",
                )
        self.setting.merged = True
        for module in (self.embedding, self.head):
            if module is not None:
                module.merge()
        for name, linear in self.linears.items():
            linear.merge()
            if not linear.weight.isfinite().all():
                self.unmerge()
                raise InputError(
                    f"{name} is not finite as {linear.weight.dtype}", "folded weights within the type's range"
                )

    @torch.no_grad()
    def unmerge(self) -> None:
        """Undo `merge`: the base's very bytes again, and live adapters."""
        assert self.setting.merged, "not merged"
        for module in (*self.linears.values(), self.embedding, self.head):
            if module is not None:
                module.unmerge()
        self.setting.merged = False

    def cache(self, on: bool = True) -> None:
        """Build rotations once and reuse them until the next call; the adapters must stand still meanwhile."""
        self.setting.cached = on
        for linear in self.linears.values():
            linear.keep(on)

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Parameters stand still in the block (generation, evaluation)."""
        self.cache()
        try:
            yield
        finally:
            self.cache(False)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The frozen base alone."""
        assert not self.setting.merged, "the base is not there while it is merged"
        self.setting.enabled = False
        try:
            yield
        finally:
            self.setting.enabled = True

    @contextmanager
    def holding(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values for the time of the block, for instance those of the reference policy."""
        assert not self.setting.merged, "unmerge first"
        parameters = self.parameters()
        mine = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = state[name]
            with self.cached():
                yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = mine[name]


def placements_of(state: Mapping[str, Tensor]) -> dict[str, Placement]:
    """Which placements a saved state needs."""
    names = sorted({name.rpartition(".")[0] for name in state if name.rpartition(".")[2] in PARTS})
    return {
        name: Placement(
            f"{name}.so8_out" in state,
            f"{name}.so8_in" in state,
            state[f"{name}.lora_a"].shape[0] if f"{name}.lora_a" in state else 0,
        )
        for name in names
    }


def _replace(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)
