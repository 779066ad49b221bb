"""The shapes of base and tower, without a weight: from the collected base, a folder, a table or the Hub."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from so8t import durable
from so8t.collect.config import UNPINNED, DemoBase, HubBase, LocalBase
from so8t.errors import InputError
from so8t.train.config import Vision

if TYPE_CHECKING:
    from so8t.artifacts import Store
    from so8t.config import Config

# config.json of Phi-3.5-mini as Microsoft published it (MIT); Borea is trained from it and keeps every shape.
PHI35_MINI = {
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 8192,
    "vocab_size": 32064,
}
PUBLISHED = {"AXCXEPT/Borea-Phi-3.5-mini-Instruct-Jp": PHI35_MINI, "microsoft/Phi-3.5-mini-instruct": PHI35_MINI}
HUB_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Geometry:
    """A Phi-3 model's shape, and where it was read."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    origin: str

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each fused linear of a layer, under the names that train.adapter.targets uses."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        return {
            "self_attn.qkv_proj": (qkv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_up_proj": (2 * self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }

    @property
    def linear_parameters(self) -> int:
        """All layers' linears."""
        return self.layers * sum(out * into for out, into in self.linears.values())

    @property
    def row_parameters(self) -> int:
        """Embedding and head, untied, and the norms."""
        return 2 * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole base."""
        return self.linear_parameters + self.row_parameters


def of_json(config: Mapping[str, Any], origin: str) -> Geometry:
    """From a config.json; InputError for one that is no Phi-3's."""
    try:
        heads = int(config["num_attention_heads"])
        return Geometry(
            int(config["hidden_size"]), int(config["num_hidden_layers"]), heads,
            int(config.get("num_key_value_heads") or heads), int(config["intermediate_size"]),
            int(config["vocab_size"]), origin,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{origin}: {error}", "the config.json of a Phi-3 model") from None


def geometry_of(config: "Config", store: "Store") -> Geometry:
    """The base's shape from what is nearest: the store, the base's folder, the table above, the Hub."""
    from so8t.step import Ref, plan

    ref = Ref("collect.base")
    collected = store.peek(ref.step, plan(ref, config, store, read_only=True).key)
    if collected is not None:
        return of_json(durable.read_json(collected.path / "config.json"), "the collected base")
    base = config.base
    if isinstance(base, DemoBase):
        return _demo(base)
    if isinstance(base, LocalBase):
        path = base.path / "config.json"
        try:
            return of_json(durable.read_json(path), str(path))
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot read {path}: {error}", "the config.json of a Phi-3 model", "mend base.path"
            ) from None
    if base.id in PUBLISHED:
        return of_json(PUBLISHED[base.id], f"the published shape of {base.id}")
    return _from_hub(base)


def _demo(base: DemoBase) -> Geometry:
    from so8t.collect.basemodel.demo import HEAD_DIM, ROW_MULTIPLE, SPARE_ROWS_MIN
    from so8t.collect.basemodel.vocabulary import PHI3_TOKENS

    used = base.vocabulary + len(PHI3_TOKENS)
    rows = -(-(used + SPARE_ROWS_MIN) // ROW_MULTIPLE) * ROW_MULTIPLE
    heads = base.hidden // HEAD_DIM
    return Geometry(base.hidden, base.layers, heads, heads, 2 * base.hidden, rows, "the demo base's config")


def _from_hub(base: HubBase) -> Geometry:
    """Read, not fetched: a plan leaves nothing on the disk."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    revision = None if base.revision == UNPINNED else base.revision
    url = hf_hub_url(base.id, "config.json", revision=revision, endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        answer = get_session().get(url, headers=build_hf_headers(), timeout=HUB_TIMEOUT_S, follow_redirects=True)
        hf_raise_for_status(answer)
        return of_json(answer.json(), f"{base.id} on the Hub")
    except (HTTPError, OSError, ValueError) as error:
        raise InputError(
            f"the shape of {base.id} could not be read from the Hub ({type(error).__name__})",
            "a network, or a base whose files are here",
            "try again with a network, or name a folder: --set base.kind=local --set base.path=FOLDER",
        ) from None


@dataclass(frozen=True)
class TowerShape:
    """SO8ViT's shape as parameter counts, and its tokens an image."""

    tower: int
    projector: int
    tokens: int
    linears: tuple[tuple[int, int], ...]
    layers: int

    @property
    def parameters(self) -> int:
        """Tower and projector."""
        return self.tower + self.projector


def tower_of(vision: Vision, geometry: Geometry) -> TowerShape:
    """A SigLIP-shaped tower without head, and the two-layer projector, all linears with a bias."""
    width, wide = vision.hidden, vision.intermediate
    tokens = (vision.image_size // vision.patch_size) ** 2
    linears = (*((width, width),) * 4, (wide, width), (width, wide))
    block = sum(out * into + out for out, into in linears) + 4 * width
    patches = 3 * vision.patch_size**2 * width + width + tokens * width
    projector = (width + 1 + geometry.hidden + 1) * geometry.hidden
    return TowerShape(patches + vision.layers * block + 2 * width, projector, tokens, linears, vision.layers)
