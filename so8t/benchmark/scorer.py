"""One way to ask every system: log-probabilities of the choices after a prompt, and a greedy reply.

`open_scorer` picks the backend by the system's name; only that backend's library is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from so8t.artifacts import Artifact, hash_json
from so8t.benchmark.prompts import Question
from so8t.config import Machine
from so8t.errors import InputError
from so8t.step import Inputs

Logprobs = list[float]
KV = Literal["F16", "F32"]


@dataclass(frozen=True)
class Reply:
    """A greedy reply without its stop token; `ended`: by a stop token, not by its length."""

    ids: list[int]
    ended: bool
    prompt_s: float
    new_s: float


class Scorer(Protocol):
    """A system, opened."""

    def choose(self, questions: Sequence[Question]) -> list[Logprobs]:
        """Natural log-probability of each choice of each question, given its prompt."""

    def generate(self, question: Question, tokens_max: int, stop: Sequence[int]) -> Reply:
        """Greedy reply after the prompt."""

    def close(self) -> None:
        """Free what is held."""


def scored(question: Question, choice: int, logprobs: Sequence[float]) -> float:
    """Log-probability of a choice from that of each of its ids: of those that are not given."""
    return float(sum(logprobs[question.given[choice] if question.given else 0 :]))


def model_digest(system: str, inputs: Inputs) -> str:
    """Digest of every byte that decides a system's answers, and of the backend that computes them."""
    train = inputs["train"]
    if system == "A":
        base = inputs["base"].content
        return hash_json([*_backend("torch", "transformers"), base, file_sha256(train, "vision/initial.safetensors")])
    if system == "B":
        return hash_json([*_backend("torch", "transformers"), inputs["base"].content, train.content])
    files = [file_sha256(artifact, path) for artifact, path in gguf_files(system, inputs)]
    return hash_json([*_backend("llama_cpp_python"), "flash attention off", *files])


def gguf_files(system: str, inputs: Inputs) -> list[tuple[Artifact, str]]:
    """The text model and the mmproj file of a system in llama.cpp, each with its artifact."""
    tower = inputs["tower" if system.startswith("A-") else "fold"]
    kind = system.partition("-")[2]
    text = inputs["fold" if kind == "F16" else "quantized"]
    return [(text, _only(text, f"-{kind}.gguf", "mmproj")), (tower, _only(tower, "-mmproj-F16.gguf", ""))]


def file_bytes(system: str, inputs: Inputs) -> int:
    """Size of the files that this system's text and images are read from."""
    if system in ("A", "B"):
        held = [inputs["base"], *([inputs["train"]] if system == "B" else [])]
        return sum(f.size_bytes for a in held for f in a.manifest.files if f.path.endswith(".safetensors"))
    names = [(artifact.manifest.files, path) for artifact, path in gguf_files(system, inputs)]
    return sum(f.size_bytes for files, path in names for f in files if f.path == path)


def _only(artifact: Artifact, ending: str, but: str) -> str:
    names = [f.path for f in artifact.manifest.files if f.path.endswith(ending) and not (but and but in f.path)]
    if len(names) != 1:
        raise InputError(f"{artifact.path} has {len(names)} files ending in {ending}", "exactly one")
    return names[0]


def file_sha256(artifact: Artifact, path: str) -> str:
    """A file's hash as its manifest has it."""
    for entry in artifact.manifest.files:
        if entry.path == path:
            return entry.sha256
    raise InputError(f"{artifact.path} has no file {path}", "an artifact of the step in force")


def _backend(*packages: str) -> list[str]:
    from importlib.metadata import version

    return [f"{package} {version(package)}" for package in packages]


def open_scorer(system: str, inputs: Inputs, machine: Machine, context: int, kv: KV = "F16") -> Scorer:
    """Open a system; `context` is the longest prompt with its reply, in tokens; `kv` the type of llama.cpp's cache."""
    if system in ("A", "B"):
        from so8t.benchmark.scorer_transformers import TransformersScorer

        folders: tuple[Path, Path] = (inputs["base"].path, inputs["train"].path)
        return TransformersScorer(*folders, adapted=system == "B", machine=machine)
    from so8t.benchmark.scorer_llama import LlamaScorer

    model, mmproj = (artifact.path / path for artifact, path in gguf_files(system, inputs))
    return LlamaScorer(model, mmproj, machine=machine, context=context, kv=kv)
