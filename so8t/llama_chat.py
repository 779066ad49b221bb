"""Chat with pictures through llama-cpp-python's own multimodal handler: what its users do with our files.

Its MTMDChatHandler renders the GGUF's chat template with a list as the content, which Phi-3's stock template cannot
concatenate (TypeError); its Llava15ChatHandler takes a template of its own. This one gives what `models.chat_text` does.
"""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as lib
import numpy as np
from llama_cpp.llama_chat_format import Llava15ChatHandler
from llama_cpp.mtmd_cpp import mtmd_default_marker

from so8t.llama import Floats, silence
from so8t.models import look_for, without

PICTURE = "{{ part.image_url if part.image_url is string else part.image_url.url }}{{ '\\n' }}"  # the handler puts its marker here
ADDED = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_USER_DEFINED | lib.LLAMA_TOKEN_ATTR_UNKNOWN


class Phi3ChatHandler(Llava15ChatHandler):  # type: ignore[misc]
    """Phi-3's chat format with pictures before the text; a user's text cannot hold tags or the picture's marker."""

    DEFAULT_SYSTEM_MESSAGE = None
    CHAT_FORMAT = (
        "{% for message in messages %}<|{{ message.role }}|>{{ '\\n' }}"
        "{% if message.content is string %}{{ message.content }}{% else %}"
        "{% for part in message.content %}{% if part.type == 'image_url' %}" + PICTURE + "{% endif %}{% endfor %}"
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
        "{% endif %}<|end|>{{ '\\n' }}{% endfor %}<|assistant|>{{ '\\n' }}"
    )

    def __init__(self, mmproj: Path) -> None:
        super().__init__(clip_model_path=str(mmproj), verbose=False)

    def __call__(self, *, llama: Any, messages: Sequence[dict[str, Any]], **more: Any) -> Any:
        """Answer; see llama_cpp.Llama.create_chat_completion."""
        pattern = _pattern(llama)
        return super().__call__(llama=llama, messages=[_disarmed(message, pattern) for message in messages], **more)


def _pattern(llama: Any) -> re.Pattern[str]:
    vocab = lib.llama_model_get_vocab(llama.model)
    added = [
        lib.llama_vocab_get_text(vocab, token).decode("utf-8")
        for token in range(lib.llama_vocab_n_tokens(vocab))
        if lib.llama_vocab_get_attr(vocab, token) & ADDED
    ]
    return look_for((*added, mtmd_default_marker().decode("utf-8")))


def _disarmed(message: dict[str, Any], pattern: re.Pattern[str]) -> dict[str, Any]:
    if message["role"] == "assistant":
        return message
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": without(content, pattern).lstrip()}
    parts = [{**part, "text": without(part["text"], pattern)} if part["type"] == "text" else part for part in content]
    return {**message, "content": parts}


class Recorder:
    """A logits processor that keeps what the model thought and has it say what it is told."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids, self.rows = list(ids), list[Floats]()

    def __call__(self, input_ids: Any, scores: Floats) -> Floats:
        """Logits `[vocab]` that leave one token."""
        self.rows.append(np.array(scores, dtype=np.float32))
        forced = np.full_like(scores, -np.inf)
        forced[self.ids[len(self.rows) - 1]] = 0.0
        return forced


def answer_logits(
    model: Path, mmproj: Path, prompt: str, png: bytes, ids: Sequence[int], end: int, context: int, threads: int
) -> Floats:
    """Logits `[1 + len(ids), vocab]` along an answer of `ids` to a picture and a text, by `create_chat_completion`."""
    silence()
    url = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    recorder = Recorder([*ids, end])
    opened = llama_cpp.Llama(
        str(model), chat_handler=Phi3ChatHandler(mmproj), n_ctx=context, n_threads=threads or None,
        n_gpu_layers=0, verbose=False, logits_all=False,
    )  # fmt: skip
    try:
        opened.create_chat_completion(
            [{"role": "user", "content": content}], max_tokens=len(ids) + 1, temperature=0.0, repeat_penalty=1.0,
            logits_processor=llama_cpp.LogitsProcessorList([recorder]),
        )  # fmt: skip
    finally:
        opened.close()
    return np.stack(recorder.rows)
