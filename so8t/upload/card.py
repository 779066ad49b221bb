"""The model card: metadata that the Hub reads back as it was written, and what a reader needs to know."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from so8t.errors import StepFailed
from so8t.labels import Label
from so8t.upload import results as r
from so8t.upload.config import Upload

MEANINGS = {
    Label.REFUSE: "help to do harm: refused, no detail",
    Label.DENY: "what must not be given out or asserted: declined, with why and a safe alternative",
    Label.ESCALATION: "needs a person or an expert, or the classifier is unsure: handed over",
    Label.ALLOW: "the rest; unknown or unsure never becomes ALLOW",
}


@dataclass(frozen=True)
class Facts:
    """What the card is made of."""

    kind: str  # model | adapter | gguf
    names: dict[str, str]  # kind -> repository on the Hub; the model's is empty for a folder
    name: str
    licence: str
    base: dict[str, Any]  # config of the base: kind, and id and revision where it is from the Hub
    results: r.Results
    data_content: str
    gates: list[dict[str, Any]]
    files: list[dict[str, Any]]  # losses by GGUF file
    rows: list[dict[str, Any]]  # counts of the data by source and licence
    datasets: list[str]  # ids on the Hub
    attributions: list[str]
    models: list[str]  # paths of the GGUF files in this repository
    mmproj: str | None
    sees: bool  # an image tower belongs to the model
    context_tokens: int
    image_size: int  # side of what the tower reads, in pixels; 0 without one


# Which systems' results a repository of this kind holds, where the GGUF files have one of their own.
OWN_SYSTEMS = {"model": "C-F16", "gguf": "C-", "adapter": ""}
WHAT = {"model": "the folded weights", "adapter": "the adapters before folding", "gguf": "the GGUF files"}


def card(config: Upload, facts: Facts) -> str:
    """The whole README.md; StepFailed if the Hub's client would read other metadata than was written."""
    systems = OWN_SYSTEMS[facts.kind] if "gguf" in facts.names else "C-" if facts.kind == "model" else ""
    evaluated = r.eval_results(facts.results, facts.data_content, systems) if systems else []
    wanted = metadata(config, facts, evaluated)
    sections = (
        _head(config, facts), _classes(), _running(facts), _results(facts), _gates(facts), _data(config, facts), _origin(facts),
    )  # fmt: skip
    body = "\n\n".join("\n".join(lines) for lines in sections)
    text = f"---\n{wanted.to_yaml(line_break=chr(10))}\n---\n\n{body}\n"
    check_round_trip(text, wanted)
    return text


def metadata(config: Upload, facts: Facts, evaluated: list[EvalResult]) -> ModelCardData:
    """The card's metadata. A base model is named only where the Hub can show it."""
    base, relation = facts.base.get("id") if facts.base.get("kind") == "hub" else None, "finetune"
    if facts.kind == "gguf":
        base, relation = facts.names["model"], "quantized"
    elif facts.kind == "adapter":
        relation = "adapter"
    more: dict[str, Any] = {"base_model": base, "base_model_relation": relation} if base else {}
    return ModelCardData(
        model_name=facts.name,
        license=facts.licence,
        language=sorted({row["language"] for row in facts.rows if row["language"]}),
        library_name={"model": "transformers", "gguf": "gguf", "adapter": "so8t"}[facts.kind],
        pipeline_tag="image-text-to-text" if facts.sees else "text-generation",
        tags=list(config.tags),
        datasets=facts.datasets or None,
        eval_results=evaluated or None,
        **more,
    )


def check_round_trip(text: str, wanted: ModelCardData) -> None:
    """Read the card as the Hub's client does and compare every result and every other field."""
    found = cast(Any, ModelCard)(text, ignore_metadata_errors=False).data
    read, evaluated = found.eval_results or [], wanted.eval_results or []
    if sorted(map(repr, read)) != sorted(map(repr, evaluated)):
        raise StepFailed(f"the card's {len(evaluated)} results are read back as {len(read)} other ones")
    before, after = ({k: v for k, v in data.to_dict().items() if k != "model-index"} for data in (wanted, found))
    if before != after:
        lost = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise StepFailed(f"the card's metadata are read back with other values of {', '.join(lost)}")


def describe_base(base: dict[str, Any]) -> str:
    """The base model in a few words; a local folder's path is nobody's business."""
    if base["kind"] == "hub":
        return f"[{base['id']}](https://huggingface.co/{base['id']}) at `{base['revision']}`"
    if base["kind"] == "demo":
        return "a small Phi-3 that the pipeline itself made and pretrained for demonstration"
    return "a local Phi-3-family model"


def _link(facts: Facts, kind: str, path: str = "") -> str:
    """A file of another repository of the same publication, or of this one."""
    if kind == facts.kind or kind not in facts.names:
        return f"`{path}`"
    name = facts.names[kind]
    return f"[{path or name}](https://huggingface.co/{name}{'/blob/main/' + path if path else ''})"


def _head(config: Upload, facts: Facts) -> list[str]:
    others = [f"- {WHAT[kind]}: {_link(facts, kind)}" for kind in facts.names if kind != facts.kind]
    return [
        f"# {facts.name}" + {"model": "", "adapter": ", adapters", "gguf": ", GGUF"}[facts.kind], "",
        f"Made by SO8T from {describe_base(facts.base)}. SO(8) rotation adapters were trained with a supervised warm-up and PPO, "
        "an image tower was joined, and all of it was folded into stock weights: no special code is needed to run it.",
        *(["", f"This repository holds {WHAT[facts.kind]}. Published with it:", "", *others] if others else []),
        "", "## Intended use", "", config.intended_use,
    ]  # fmt: skip


def _classes() -> list[str]:
    rows = [
        [f"{label.name} ({label.value})", f"`{label.token}`".replace("|", "\\|"), meaning]
        for label, meaning in MEANINGS.items()
    ]
    return [
        "## Thinking and the four classes", "",
        "Every reply is `<think-task>` what is asked, `<think-safety>` the class, `<think-policy>` what follows from it, "
        "and `<final>` the answer. Only `<final>` is for the user; a program must cut the rest away, and must show a fixed "
        "apology where `<final>` is missing or malformed. Where several classes apply, the one listed first wins:", "",
        *r.table(["class", "token", "means"], rows),
    ]  # fmt: skip


def _running(facts: Facts) -> list[str]:
    lines = ["## How to run it", ""]
    if facts.models:
        lines += _running_gguf(facts)
    elif facts.kind == "model":
        lines += [f"llama.cpp and Ollama: see {_link(facts, 'gguf')}.", ""]
    if facts.kind == "model":
        own = (
            "" if "adapter" in facts.names else "; `adapter/` the adapters before folding; `head/` the four-class head"
        )
        lines += [
            "transformers: `AutoModelForCausalLM.from_pretrained` loads the folded text model; `vision/` holds the folded image "
            f"tower and projector{own}.",
        ]  # fmt: skip
    if facts.kind == "adapter":
        lines += [
            "The adapters stand in `adapter.safetensors` with their shape in `adapter.json`, those of the image tower in "
            "`vision/`, the four-class head in `head/`. SO8T folds them into the base (`so8t step bake`) and writes them as "
            f"PEFT reads them where PEFT can (`so8t adapter export`). Folded already: {_link(facts, 'model')}.",
        ]  # fmt: skip
    return lines


def _running_gguf(facts: Facts) -> list[str]:
    smallest = facts.models[0]
    image = f" --mmproj {facts.mmproj}" if facts.mmproj else ""
    return [
        "llama.cpp (images through the `mmproj` file):", "",
        "```", f"llama-mtmd-cli -m {smallest}{image} -c {facts.context_tokens} --jinja", "```", "",
        "Ollama, in a copy of this repository (the Modelfile was checked against the chat template; Ollama itself was not "
        "run):", "",
        "```", f"ollama create {facts.name} -f Modelfile", f"ollama run {facts.name}", "```", "",
        *r.file_table([*facts.models, *([facts.mmproj] if facts.mmproj else [])], facts.files), "",
        "Losses against the live adapter model.", "",
        *(_pictures(facts) if facts.mmproj else []),
    ]  # fmt: skip


def _pictures(facts: Facts) -> list[str]:
    return [
        f"Scale a picture to {facts.image_size} x {facts.image_size} pixels before it is given to the model: what a program "
        "does by itself to another size is not what was trained and measured.", "",
    ]  # fmt: skip


def _results(facts: Facts) -> list[str]:
    lines = [
        "## Results", "",
        "A: the base, A-Q8_0 and the like the same as a file of that type in llama.cpp, not published here; B: the base with "
        "live adapters; C: the baked files in llama.cpp, C-F16 unquantized.",
    ]  # fmt: skip
    for task, systems in sorted(facts.results["tasks"].items()):
        lines += ["", f"### {task}", "", _asked(facts, task), "", *r.task_table(systems)]
        faults = r.fault_table(systems)
        lines += ["", *faults] if faults else []
    lines += ["", "### Declared contrasts", "", *r.contrast_list(facts.results)]
    return [
        *lines,
        "",
        f"Methods, plots and every number: {_link(facts, 'model', 'eval/report.md')}, {_link(facts, 'model', 'eval/results.json')}.",
    ]


def _asked(facts: Facts, task: str) -> str:
    if r.from_outside(facts.results, task):
        return f"Questions of others ({r.origin(facts.results, task)}); how they are asked stands in the report."
    return (
        "The held-out test split, used for nothing else: the reply is forced up to the answer and the choices are compared by "
        "log-probability."
    )


def _gates(facts: Facts) -> list[str]:
    return [
        "## Gates of the bake", "",
        "Each file was compared with the live adapter model before it was published:", "", *r.gate_table(facts.gates),
    ]  # fmt: skip


def _data(config: Upload, facts: Facts) -> list[str]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in facts.rows:
        counts[row["source"], row["revision"], row["licence"]] += row["rows"]
    rows = [
        [f"`{source}`", f"`{revision}`", licence, str(n)] for (source, revision, licence), n in sorted(counts.items())
    ]
    return [
        "## Data", "",
        *r.table(["source", "revision", "licence", "rows"], rows), "",
        "Rows passed a licence gate, exact and near-duplicate removal, masking of personal data and quality rules; splits "
        f"share no group of related rows. Details: {_link(facts, 'model', 'data_card.md')}.", "",
        *(f"Attribution: {name}\n" for name in facts.attributions),
        "## Adult material", "", config.nsfw_statement,
    ]  # fmt: skip


def _origin(facts: Facts) -> list[str]:
    return [
        "## Provenance", "",
        "`provenance.json` leads from every file to the artifact that it is a part of, to that artifact's inputs, and down to "
        "the sources with revision, licence and row counts. "
        f"{_link(facts, 'model', 'provenance_samples.jsonl')} names source, revision, file, row and licence of every single "
        "sample. `SHA256SUMS` names every file's hash: `sha256sum --check SHA256SUMS`.",
        "", "## Licence", "",
        f"The model is published under {facts.licence}, the licence of its base. The data's licences are listed above.",
    ]  # fmt: skip
