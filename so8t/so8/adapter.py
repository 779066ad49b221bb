"""SO(8) adapters around the linears of a frozen model, and trainable rows for added tokens.

The model's own code is not touched: modules are replaced. Names in the adapter file:

    P.so8_out [out/8, 28]   P.so8_in [in/8, 28]   P.lora_a [rank, in]   P.lora_b [out, rank]
    token_rows.embed_tokens [k, hidden]           token_rows.lm_head [k, hidden]    in order of the token ids
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from so8t.errors import InputError
from so8t.so8.linear import Placement, Setting, So8Linear
from so8t.so8.rows import RowsEmbedding, RowsHead

PARTS = ("so8_out", "so8_in", "lora_a", "lora_b")
EMBED_ROWS, HEAD_ROWS = "token_rows.embed_tokens", "token_rows.lm_head"


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
