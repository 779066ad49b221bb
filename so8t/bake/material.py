"""What is baked: a base, an adapter and a tokenizer, from a training or from an adapter folder alone.

A training's artifact holds `adapter/`, `tokenizer/` and `vision/`. An adapter folder alone is ours (`adapter.json`) or
PEFT's (`adapter_config.json`); its tokenizer is its own where it has one, else the base's, and it has no image tower.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from so8t import __version__, durable
from so8t.artifacts import content_of
from so8t.errors import InputError
from so8t.so8.merge import Adapter, Folded, Tensors, read_adapter_folder, read_vision_adapter

if TYPE_CHECKING:
    from so8t.artifacts import Artifact
    from so8t.step import Inputs

OURS, PEFT = "adapter.json", "adapter_config.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Material:
    """Folders; the image tower's may be absent."""

    base: Path
    adapter: Path
    tokenizer: Path
    vision: Path | None

    @classmethod
    def of(cls, base: Path, train: Path) -> "Material":
        """InputError where `train` holds no adapter."""
        adapter = train / "adapter" if (train / "adapter" / OURS).is_file() else train
        if not any((adapter / name).is_file() for name in (OURS, PEFT)):
            raise InputError(
                f"{train} holds neither {OURS} nor {PEFT}", "an adapter folder of ours or PEFT's, or a train artifact"
            )
        folders = (train / "tokenizer", train.parent / "tokenizer", adapter)
        tokenizer = next((folder for folder in folders if (folder / TOKENIZER).is_file()), base)
        vision = train / "vision"
        return cls(base, adapter, tokenizer, vision if (vision / "config.json").is_file() else None)

    @property
    def is_peft(self) -> bool:
        """Whether PEFT wrote the adapter."""
        return not (self.adapter / OURS).is_file()

    @cached_property
    def text(self) -> Folded:
        """The language model; InputError where the adapter is of another base, or cannot be folded."""
        return Folded(Tensors.of_model(self.base), self._read())

    @cached_property
    def tower(self) -> Folded | None:
        """The image tower."""
        if self.vision is None:
            return None
        return Folded(Tensors([self.vision / "model.safetensors"]), read_vision_adapter(self.vision.parent))

    def _read(self) -> Adapter:
        if not self.is_peft:
            return read_adapter_folder(self.adapter)
        # torch reads what PEFT may have saved in bf16; our own adapters do without it.
        from so8t.so8.peft_fold import read_peft

        return read_peft(self.adapter, self.base)


def material_of(inputs: "Inputs") -> Material:
    """Of the roles base and train; InputError where the adapter says that it was trained on another base."""
    found = Material.of(inputs["base"].path, inputs["train"].path)
    wanted = "" if found.is_peft else durable.read_json(found.adapter / OURS)["base_content"]
    # A folder that no step made has no content to compare: what fits in names and shapes is taken.
    if wanted and inputs["base"].manifest.key and wanted != inputs["base"].content:
        raise InputError(
            f"{found.adapter} was trained on a base with content {wanted[:12]}, {found.base} has {inputs['base'].content[:12]}",
            "the base that it was trained on",
        )
    return found


def provenance(inputs: "Inputs", material: Material) -> dict[str, str]:
    """What a GGUF was made from: base, adapter, licence and version."""
    facts = inputs["base"].manifest.facts
    train = inputs["train"]
    inside = material.adapter.relative_to(train.path).as_posix()
    return {
        "license": str(facts.get("licence") or ""),
        "base_id": str(facts.get("id") or ""),
        "base_revision": str(facts.get("revision") or ""),
        "base_content": inputs["base"].content,
        "train_content": train.content,
        "adapter_content": _content_under(train, inside),
        "version": __version__,
    }


def _content_under(artifact: "Artifact", folder: str) -> str:
    prefix = "" if folder == "." else f"{folder}/"
    return content_of([entry for entry in artifact.manifest.files if entry.path.startswith(prefix)])
