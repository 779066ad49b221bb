"""The base model and its tokenizer: read a Hub-shaped folder, write the thinking tokenizer, make prompts.

A tokenizer folder always has the base's `config.json` in it: AutoTokenizer picks another class, and
other ids, without it. Nothing here runs code that comes with a model.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from so8t import durable, pulse
from so8t.errors import InputError
from so8t.thinking import ADDED_TOKENS, IMAGE_TOKEN

if TYPE_CHECKING:
    import torch
    from transformers import Phi3ForCausalLM, PreTrainedTokenizerBase

ARCHITECTURE = "Phi3ForCausalLM"
END_TOKEN = "<|end|>"
# llama.cpp ends a reply at these, whatever generation_config says; so must whoever is compared with it.
END_TOKENS = ("</s>", "<|endoftext|>", END_TOKEN)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
COPIED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "chat_template.jinja",
)
Dtype = Literal["float32", "bfloat16", "float16", "float64", "nf4"]


def check_base(folder: Path) -> dict[str, Any]:
    """The folder's config; InputError unless it is a whole stock Phi-3 in safetensors with a tokenizer that can grow."""
    config = check_model(folder)
    check_tokenizer(folder)
    spare_rows(folder)
    return config


def check_tokenizer(folder: Path) -> None:
    """InputError unless there is a fast tokenizer with a chat template."""
    *_, settings = (_read(folder / name, "a fast tokenizer") for name in TOKENIZER_FILES)
    if not (folder / "chat_template.jinja").is_file() and not settings.get("chat_template"):
        raise InputError(
            f"{folder} has no chat template", "chat_template.jinja, or chat_template in tokenizer_config.json"
        )


def check_model(folder: Path) -> dict[str, Any]:
    """The folder's config; InputError unless it is a whole stock Phi-3 in safetensors, whatever its tokenizer."""
    config = _read(folder / "config.json", "a folder laid out like a Hub repository of a Phi-3 model")
    found = config.get("architectures")
    if found != [ARCHITECTURE]:
        raise InputError(
            f"{folder} holds {found}", f"[{ARCHITECTURE!r}]", "choose a Phi-3 or Phi-3.5 mini model as the base"
        )
    weight_files(folder)
    return config


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files in the order of their names; InputError where one is missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read(index, "a safetensors index")["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    absent = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if absent:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        found = f"{folder} lacks {', '.join(absent)}" + (
            f" and holds {', '.join(pickles)}, which are pickles" if pickles else ""
        )
        raise InputError(
            found, "weights as safetensors", "convert pickled weights to safetensors, or fetch the missing shards"
        )
    return [folder / name for name in names]


def _read(path: Path, wanted: str) -> dict[str, Any]:
    try:
        value = durable.read_json(path)
    except FileNotFoundError:
        raise InputError(f"no file {path}", wanted) from None
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON: {error}", wanted, "a Git-LFS pointer or a torn download looks like this"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}", "a JSON object")
    return value


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder that also has the base's config.json; InputError names a missing file."""
    for name in ("config.json", *TOKENIZER_FILES):
        _read(folder / name, "a tokenizer folder with the base's config.json in it")
    from transformers import AutoTokenizer

    _silence()
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_base(folder: Path, dtype: Dtype = "float32", device: str = "cpu") -> "Phi3ForCausalLM":
    """The base in evaluation mode with eager attention, from safetensors only; InputError for another architecture.

    nf4: the layers' linears in 4-bit NormalFloat with double quantization (Dettmers et al. 2023, section 3);
    embedding, head and norms in bfloat16.
    """
    check_model(folder)
    import torch
    from transformers import Phi3ForCausalLM

    if dtype not in get_args(Dtype):
        raise InputError(f"dtype {dtype!r}", "one of " + ", ".join(get_args(Dtype)))
    _silence()
    quantised = _nf4(device) if dtype == "nf4" else {}
    model = Phi3ForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if quantised else getattr(torch, dtype),
        attn_implementation="eager",
        use_safetensors=True,
        local_files_only=True,
        **quantised,
    )
    for layer in model.model.layers:
        layer.register_forward_hook(_beat)
    if not quantised:
        return model.to(device).eval()
    for module in model.modules():
        # Linear4bit in evaluation mode repacks itself for such CPUs, for a kernel that autograd does not know:
        # gradients that pass through it would be lost, without an error.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    for parameter in model.parameters():
        # A norm's weight would keep the whole file mapped in which it lies, and the full-size linears in memory.
        if parameter.dtype == torch.bfloat16 and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()
    return model.eval()


def _beat(module: Any, given: Any, found: Any) -> None:
    """A layer has been computed. Nothing in a compiled graph, which a call of Python would break."""
    import torch

    if not torch.compiler.is_compiling():
        pulse.beat()


def _nf4(device: str) -> dict[str, Any]:
    """Arguments of from_pretrained; InputError where what they need is not installed."""
    from importlib.util import find_spec

    import torch
    from transformers import BitsAndBytesConfig

    if absent := [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]:
        raise InputError(
            f"base_dtype nf4 without {' and '.join(absent)}",
            "the extra nf4",
            'pip install -c constraints.txt -e ".[nf4]"',
        )
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=["lm_head"],
    )  # fmt: skip
    return {"quantization_config": settings, "device_map": {"": device}}


def _silence() -> None:
    """No bars, and no advice to edit the base's own config.json."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def spare_rows(folder: Path) -> range:
    """The vocabulary rows above the highest id in use; InputError if the added tokens do not fit in."""
    vocab_size = int(_read(folder / "config.json", "a Phi-3 config")["vocab_size"])
    tokenizer = _read(folder / "tokenizer.json", "a fast tokenizer")
    added = {entry["content"]: int(entry["id"]) for entry in tokenizer["added_tokens"]}
    first = max([*tokenizer["model"]["vocab"].values(), *added.values()]) + 1
    needed = sum(token not in added for token in ADDED_TOKENS)
    if vocab_size - first < needed:
        raise InputError(
            f"{folder} has {max(vocab_size - first, 0)} spare vocabulary rows",
            f"at least {needed}, so that no shape changes",
            "choose a base whose vocab_size is above its highest token id",
        )
    return range(first, vocab_size)


def write_thinking_tokenizer(base_folder: Path, out_folder: Path) -> dict[str, int]:
    """Write the base's tokenizer with the added tokens in its first spare rows; give {token: id}.

    The JSON files are edited, the others are copied byte for byte: save_pretrained drops
    tokenizer.model and add_bos_token.
    """
    tokenizer = _read(base_folder / "tokenizer.json", "a fast tokenizer")
    settings = _read(base_folder / "tokenizer_config.json", "a fast tokenizer")
    known = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    spare = iter(spare_rows(base_folder))
    ids: dict[str, int] = {}
    for token in ADDED_TOKENS:
        if token in known:
            _demand_flags(base_folder, known[token])
            ids[token] = int(known[token]["id"])
            continue
        if token in tokenizer["model"]["vocab"]:
            raise InputError(
                f"{token} is an ordinary piece of {base_folder}'s vocabulary", "an added token or no token at all"
            )
        ids[token] = next(spare)
        tokenizer["added_tokens"].append({"id": ids[token], "content": token, **_FLAGS})
        settings.setdefault("added_tokens_decoder", {})[str(ids[token])] = {"content": token, **_FLAGS}
    for name in COPIED_FILES:
        if (base_folder / name).is_file():
            durable.write_bytes(out_folder / name, (base_folder / name).read_bytes())
    if (base_folder / "added_tokens.json").is_file():
        _write_unsorted(
            out_folder / "added_tokens.json", {**_read(base_folder / "added_tokens.json", "a JSON object"), **ids}
        )
    _write_unsorted(out_folder / "tokenizer.json", tokenizer)
    _write_unsorted(out_folder / "tokenizer_config.json", settings)
    return ids


# llama.cpp strips whitespace to the right of every added token of a model named phi-3: rstrip does the same here.
# Not special: decoding would delete them. Not normalized: the tokenizer's prefix space would split the closers.
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": True, "normalized": False, "special": False}


def _demand_flags(folder: Path, entry: dict[str, Any]) -> None:
    found = {name: entry.get(name) for name in _FLAGS}
    if found != _FLAGS:
        raise InputError(
            f"{folder} has {entry['content']} with {found}",
            f"{_FLAGS}",
            "choose the model that this base was made from",
        )


def _write_unsorted(path: Path, value: object) -> None:
    """Merges and vocabulary keep their order."""
    import json

    durable.write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def chat_text(tokenizer: "PreTrainedTokenizerBase", prompt: str, marker: str = "") -> str:
    """One user turn in the chat template, up to where the assistant's reply starts; `marker` is a picture's place.

    Behind `<|user|>` transformers drops any whitespace, llama.cpp only ASCII's: a prompt that starts with
    U+3000 would be read in two ways. So leading whitespace goes here already.
    """
    text = neutral(tokenizer, prompt)
    messages = [{"role": "user", "content": f"{marker}\n{text}" if marker else text.lstrip()}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def neutral(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """The text with a space inside of whatever the tokenizer would take for one of its added tokens.

    Otherwise a user who types `<|end|>` or `<final>` ends the turn or writes the reply's own tags. To tokenise user
    text without its added tokens is no way: llama.cpp and transformers both look for those that are not special.
    """
    return without(text, look_for(tuple(tokenizer.get_added_vocab())))


def without(text: str, pattern: re.Pattern[str]) -> str:
    """The text with a space behind the first character of each match that is none itself, until nothing matches."""
    while pattern.search(text):
        text = pattern.sub(lambda found: re.sub(r"^(\s*\S)", r"\1 ", found[0]), text)
    return text


@cache
def look_for(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """What `without` may be given: any of the tokens but single characters and white space, which a space leaves whole."""
    return re.compile("|".join(re.escape(token) for token in tokens if len(token.strip()) > 1) or r"(?!)")


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str, image_tokens: int = 0) -> list[int]:
    """Ids up to where the reply starts. With an image the user turn is `<image>`, a line feed, the prompt.

    Text before and after the marker is tokenised separately, as llama.cpp's mtmd does; the marker
    becomes `image_tokens` copies of its id, whose embeddings the tower's output replaces.
    """
    if image_tokens == 0:
        return reply_ids(tokenizer, chat_text(tokenizer, prompt))
    before, after = chat_text(tokenizer, prompt, IMAGE_TOKEN).split(IMAGE_TOKEN, 1)
    image_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    return [*reply_ids(tokenizer, before), *[image_id] * image_tokens, *reply_ids(tokenizer, after)]


def chat_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str, response: str) -> list[int]:
    """Ids of a prompt with its whole reply and the token that ends it."""
    return prompt_ids(tokenizer, prompt) + reply_ids(tokenizer, response + END_TOKEN)


def reply_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Ids of exactly this text, tags included; nothing is added at either end."""
    pulse.beat()
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def stop_ids(folder: Path) -> list[int]:
    """Ids that end a reply: generation_config's and llama.cpp's own, sorted; InputError if there is none."""
    tokenizer = _read(folder / "tokenizer.json", "a fast tokenizer")
    known = {**tokenizer["model"]["vocab"], **{entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}}
    ids = {int(known[token]) for token in END_TOKENS if token in known}
    if (folder / "generation_config.json").is_file():
        eos = _read(folder / "generation_config.json", "a JSON object").get("eos_token_id")
        ids.update(eos if isinstance(eos, list) else [] if eos is None else [eos])
    if not ids:
        raise InputError(f"{folder} names no token that ends a reply", "one of " + ", ".join(END_TOKENS))
    return sorted(ids)


def pick_device(setting: Literal["auto", "cpu", "cuda"]) -> "torch.device":
    """The machine section's device; auto takes CUDA where torch finds it."""
    import torch

    if setting == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "machine.device is cuda, but torch finds no CUDA device",
            "a CUDA device or a CUDA build of torch",
            "set machine.device to auto or cpu",
        )
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")
