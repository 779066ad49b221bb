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

    name: str
    licence: str
    base: dict[str, Any]  # config of the base: kind, and id and revision where it is from the Hub
    results: r.Results
    data_content: str
    gates: list[dict[str, Any]]
    rows: list[dict[str, Any]]  # counts of the data by source and licence
    attributions: list[str]
    models: list[str]  # paths of the GGUF files
    mmproj: str | None
    context_tokens: int


def card(config: Upload, facts: Facts) -> str:
    """The whole README.md; StepFailed if the Hub's client would read other results than were written."""
    evaluated = r.eval_results(facts.results, facts.data_content)
    block = metadata(config, facts, evaluated).to_yaml(line_break="\n")
    sections = (
        _head(config, facts), _classes(), _running(facts), _results(facts), _gates(facts), _data(config, facts), _origin(facts),
    )  # fmt: skip
    text = f"---\n{block}\n---\n\n" + "\n\n".join("\n".join(lines) for lines in sections) + "\n"
    check_round_trip(text, evaluated)
    return text


def metadata(config: Upload, facts: Facts, evaluated: list[EvalResult]) -> ModelCardData:
    """The card's metadata. A base model is named only where the Hub can show it."""
    more: dict[str, Any] = {}
    if facts.base.get("kind") == "hub":
        more = {"base_model": facts.base["id"], "base_model_relation": "finetune"}
    return ModelCardData(
        model_name=facts.name,
        license=facts.licence,
        language=sorted({row["language"] for row in facts.rows if row["language"]}),
        library_name="transformers",
        pipeline_tag="image-text-to-text" if facts.mmproj else "text-generation",
        tags=list(config.tags),
        eval_results=evaluated or None,
        **more,
    )


def check_round_trip(text: str, evaluated: list[EvalResult]) -> None:
    """Read the card as the Hub's client does and compare every result."""
    found = cast(Any, ModelCard)(text, ignore_metadata_errors=False).data.eval_results or []
    if sorted(map(repr, found)) != sorted(map(repr, evaluated)):
        raise StepFailed(f"the card's {len(evaluated)} results are read back as {len(found)} other ones")


def describe_base(base: dict[str, Any]) -> str:
    """The base model in a few words; a local folder's path is nobody's business."""
    if base["kind"] == "hub":
        return f"[{base['id']}](https://huggingface.co/{base['id']}) at `{base['revision']}`"
    if base["kind"] == "demo":
        return "a small Phi-3 that the pipeline itself made and pretrained for demonstration"
    return "a local Phi-3-family model"


def _head(config: Upload, facts: Facts) -> list[str]:
    return [
        f"# {facts.name}", "",
        f"Made by SO8T from {describe_base(facts.base)}. SO(8) rotation adapters were trained with a supervised warm-up and PPO, "
        "an image tower was joined, and all of it was folded into stock weights: no special code is needed to run it.",
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
    smallest = facts.models[0]
    image = f" --mmproj {facts.mmproj}" if facts.mmproj else ""
    return [
        "## How to run it", "",
        "llama.cpp (images through the `mmproj` file):", "",
        "```", f"llama-mtmd-cli -m {smallest}{image} -c {facts.context_tokens} --jinja", "```", "",
        "Ollama, in a copy of this repository (the Modelfile was checked against the chat template; Ollama itself was not "
        "run):", "",
        "```", f"ollama create {facts.name} -f Modelfile", f"ollama run {facts.name}", "```", "",
        "transformers: `AutoModelForCausalLM.from_pretrained` loads the folded text model; `vision/` holds the folded image "
        "tower and projector; `adapter/` the adapters before folding; `head/` the four-class head.",
        "", "| GGUF file |", "| --- |", *(f"| `{path}` |" for path in [*facts.models, *([facts.mmproj] if facts.mmproj else [])]),
    ]  # fmt: skip


def _results(facts: Facts) -> list[str]:
    lines = ["## Results on the held-out test split", ""]
    lines += [
        "A: the base; B: the base with live adapters; C: the baked files in llama.cpp, C-F16 unquantized. The reply is forced "
        "up to the answer and the choices are compared by log-probability. The test split was used for nothing else.",
    ]  # fmt: skip
    if not facts.results["complete"]:
        lines += ["", "**Incomplete: some items have no answer of some system. Such a task is not compared.**"]
    for task, systems in sorted(facts.results["tasks"].items()):
        lines += ["", f"### {task}", "", *r.task_table(systems)]
        faults = r.fault_table(systems)
        lines += ["", *faults] if faults else []
    lines += ["", "### Declared contrasts", "", *r.contrast_list(facts.results)]
    return [*lines, "", "Methods, plots and every number: `eval/report.md`, `eval/results.json`."]


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
        "share no group of related rows. Details: `data_card.md`.", "",
        *(f"Attribution: {name}\n" for name in facts.attributions),
        "## Adult material", "", config.nsfw_statement,
    ]  # fmt: skip


def _origin(facts: Facts) -> list[str]:
    return [
        "## Provenance", "",
        "`provenance.json` leads from every file to the artifact that it is a part of, to that artifact's inputs, and down to "
        "the sources with revision, licence and row counts. `SHA256SUMS` names every file's hash: `sha256sum --check SHA256SUMS`.",
        "", "## Licence", "",
        f"The model is published under {facts.licence}, the licence of its base. The data's licences are listed above.",
    ]  # fmt: skip
