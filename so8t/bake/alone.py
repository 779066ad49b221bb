"""`so8t step bake --adapter DIR --base DIR`: fold, quantize and prove an adapter without the steps before.

The steps of a bake run here as they are, with two folders in the place of artifacts: hashed now, and part of the keys
by content. So a second run finds everything done, and a killed one goes on.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from so8t.artifacts import MANIFEST, Artifact, FileEntry, Manifest, Store, check_hashes, content_of, hash_file, load
from so8t.bake.config import Bake, Fold
from so8t.bake.gguf_vocab import strips_right
from so8t.bake.material import OURS, Material
from so8t.config import Config
from so8t.errors import DamagedArtifact, InputError
from so8t.models import check_model, check_tokenizer
from so8t.progress import Sink
from so8t.section import Section
from so8t.step import Inputs, Plan, Ref, compute_key, make, steps

# What else lies in a model's folder is not read.
SUFFIXES = frozenset({".json", ".jinja", ".model", ".safetensors", ".txt"})
NAME_WITHOUT_PHI3 = "so8t-baked"


@dataclass(frozen=True)
class Request:
    """What is asked for: two folders, a name ("" takes the config's), and whether transformers' folder is written too."""

    base: Path
    adapter: Path
    name: str = ""
    stock: bool = True


def bake_alone(config: Config, store: Store, request: Request, sinks: tuple[Sink, ...] = ()) -> Artifact:
    """The bake's artifact; those of the fold and the quantizations lie beside it in the store.

    InputError for a base of another family, an adapter that cannot be folded, or one of another base.
    """
    check_model(request.base)
    train = _train_of(request.adapter)
    material = Material.of(request.base, train)
    if guided := [name for name in config.bake.quantizations if config.bake.quantize(name).guided]:
        raise InputError(
            f"bake.quantizations has {', '.join(guided)}",
            "types without a guide: an adapter alone has no training split to compute one on",
            "--set bake.quantizations=[Q8_0,Q4_K_M]",
        )
    check_tokenizer(material.tokenizer)
    # Named for the tokenizer where nothing is asked for: llama.cpp decides by it what white space means.
    fitting = config.bake.fold.name if strips_right(material.tokenizer) else NAME_WITHOUT_PHI3
    try:
        fold = Fold(name=request.name or fitting, stock=request.stock)
    except ValidationError as error:
        raise InputError(f"the name {request.name!r}: {error.errors()[0]['msg']}", "a name for files") from None
    section = config.bake.model_copy(update={"fold": fold})
    inputs = {"base": folder_as_artifact(request.base), "train": folder_as_artifact(train)}
    if not any(material.tokenizer.is_relative_to(folder) for folder in (request.base, train)):
        inputs["tokenizer"] = folder_as_artifact(material.tokenizer)
    return _Baking(config, store, sinks).run(section, inputs)


class _Baking:
    def __init__(self, config: Config, store: Store, sinks: tuple[Sink, ...]) -> None:
        self.config, self.store, self.sinks = config, store, sinks

    def run(self, bake: Bake, inputs: Inputs) -> Artifact:
        fold = self._make("bake.fold", "", bake.fold, inputs)
        quantized = {
            f"quantized.{name}": self._make("bake.quantize", name, bake.quantize(name), {"fold": fold})
            for name in bake.quantizations
        }
        return self._make("bake", "", bake, {**inputs, "fold": fold, **quantized})

    def _make(self, name: str, part: str, section: Section, inputs: Inputs) -> Artifact:
        step = steps()[name]
        planned = Plan(Ref(name, part), step, section, dict(inputs), compute_key(step, section, inputs))
        return make(planned, self.config.machine, self.store, self.sinks)


def _train_of(adapter: Path) -> Path:
    """The training that an adapter folder of ours lies in, with its tokenizer and tower; else the folder itself."""
    inside_of_a_training = adapter.name == "adapter" and (adapter / OURS).is_file()
    return adapter.parent if inside_of_a_training and (adapter.parent / MANIFEST).is_file() else adapter


def folder_as_artifact(folder: Path, hashed: bool = True) -> Artifact:
    """A folder in an artifact's place; DamagedArtifact where it is one, and not as its manifest says.

    Without hashes its content is that of no files: for measuring what a step itself costs.
    """
    if (folder / MANIFEST).is_file():
        problems = check_hashes(folder)
        if problems:
            raise DamagedArtifact("; ".join(map(str, problems)))
        return load(folder)
    files = [
        FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=hash_file(path))
        for path in sorted(folder.rglob("*"))
        if hashed and path.suffix in SUFFIXES and path.is_file() and not _hidden(path.relative_to(folder))
    ]
    manifest = Manifest(
        step="", version=0, key="", content=content_of(files), inputs={}, config={}, files=files, facts={}, code={},
        packages={}, machine={}, started_at="", finished_at="",
    )  # fmt: skip
    return Artifact(folder, manifest)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
