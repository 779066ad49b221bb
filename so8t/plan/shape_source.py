"""Where a base's shape is read: the collected base, a folder, a table or the Hub, whichever is nearest."""

import os
from typing import TYPE_CHECKING

from so8t import durable
from so8t.collect.config import DemoBase, HubBase, LocalBase
from so8t.errors import InputError
from so8t.plan.geometry import PHI35_MINI, Geometry, of_json
from so8t.section import UNPINNED

if TYPE_CHECKING:
    from so8t.artifacts import Store
    from so8t.config import Config

PUBLISHED = {"AXCXEPT/Borea-Phi-3.5-mini-Instruct-Jp": PHI35_MINI, "microsoft/Phi-3.5-mini-instruct": PHI35_MINI}
HUB_TIMEOUT_S = 10.0


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
