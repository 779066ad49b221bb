"""The Ollama Modelfile: template, stop tokens and context as the model was trained, checked against its own files."""

import json
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from so8t import durable
from so8t.errors import InputError
from so8t.models import stop_ids

ROLES = ("system", "user", "assistant")
# Ollama's template language is Go's; one turn is the role's token, a line end, the text and the end token.
TEMPLATE = "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n"


def modelfile(hf: Path, model: str, mmproj: str | None) -> str:
    """The Modelfile's text for GGUF files given relative to it; InputError if the chat template is another."""
    check_template(read_template(hf))
    config = durable.read_json(hf / "config.json")
    context = int(config.get("original_max_position_embeddings") or config["max_position_embeddings"])
    lines = ["# ollama create NAME -f Modelfile", f"FROM ./{model}"]
    if mmproj:
        lines.append(f"FROM ./{mmproj}")
    lines.append(f'TEMPLATE """{TEMPLATE}"""')
    # llama.cpp chooses LongRoPE's factors by the context it is given; beyond this they are the long ones.
    lines.append(f"PARAMETER num_ctx {context}")
    lines += [f'PARAMETER stop "{token}"' for token in stop_tokens(hf)]
    return "\n".join(lines) + "\n"


def read_template(hf: Path) -> str:
    """The chat template, from its own file or from the tokenizer's config."""
    if (hf / "chat_template.jinja").is_file():
        return (hf / "chat_template.jinja").read_text(encoding="utf-8")
    found = durable.read_json(hf / "tokenizer_config.json").get("chat_template")
    if not isinstance(found, str):
        raise InputError("the tokenizer has no chat template", "the Phi-3 chat template")
    return found


def check_template(template: str) -> None:
    """InputError unless the model's own template gives what TEMPLATE gives."""
    messages = [{"role": role, "content": f"text of {role}"} for role in (*ROLES, "user")]
    try:
        found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token="",
        )  # fmt: skip
    except TemplateError as error:
        raise InputError(f"the chat template cannot be rendered: {error}", "the Phi-3 chat template") from None
    if found != render(messages):
        raise InputError(
            f"the chat template gives {found[:80]!r}..",
            f"what the Modelfile gives, {render(messages)[:80]!r}..",
            "use a base with the Phi-3 chat template",
        )


def render(messages: list[dict[str, str]]) -> str:
    """TEMPLATE as Ollama fills it in."""
    turn, end = TEMPLATE.removeprefix("{{ range .Messages }}").split("{{ end }}")
    filled = (turn.replace("{{ .Role }}", m["role"]).replace("{{ .Content }}", m["content"]) for m in messages)
    return "".join(filled) + end


def stop_tokens(hf: Path) -> list[str]:
    """Texts of the ids that end a reply (models.stop_ids), as they stand in the vocabulary."""
    tokenizer = json.loads((hf / "tokenizer.json").read_text(encoding="utf-8"))
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    texts = {index: piece for piece, index in vocab.items()}
    texts |= {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    return sorted(texts[index] for index in stop_ids(hf))
