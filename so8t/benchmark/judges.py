"""The judges: a model behind an OpenAI-compatible endpoint, or a GGUF file in this process."""

import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

from so8t.benchmark.config import EndpointJudge, LocalJudge
from so8t.config import Machine
from so8t.errors import InputError, StepFailed
from so8t.waits import asked_s

FIRST_PAUSE_S = 1.0
PAUSE_MAX_S = 60.0
ASKED_MAX_S = 3600.0
NOT_WORTH_A_TRY = {
    401: "a key that the endpoint takes",
    403: "a key that may use this model",
    404: "the right url and model",
}


class Judge(Protocol):
    """Whoever grades."""

    def ask(self, question: str, tokens_max: int) -> str:
        """The reply to one question, as deterministic as the judge can be; StepFailed where there is none."""

    def close(self) -> None:
        """Free what is held."""


def open_judge(config: EndpointJudge | LocalJudge, machine: Machine) -> Judge:
    """Open it; InputError for an endpoint without its key."""
    return EndpointScorer(config) if isinstance(config, EndpointJudge) else LocalScorer(config, machine)


class EndpointScorer:
    """Asks `/chat/completions` at temperature 0. The key is sent and kept nowhere else."""

    def __init__(self, config: EndpointJudge, environment: Mapping[str, str] = os.environ) -> None:
        import httpx

        key = environment.get(config.key_env, "")
        if not key:
            raise InputError(
                f"the judge {config.label} has no key", f"it in the environment variable {config.key_env}", "set it"
            )
        self._config = config
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(headers=headers, timeout=config.timeout_s, follow_redirects=False)

    def ask(self, question: str, tokens_max: int) -> str:
        """See `Judge`; tries again on 408, 409, 425, 429, 5xx and lost connections, and waits as long as it is asked to."""
        body = {
            "model": self._config.model, "temperature": 0, "seed": 0, "max_tokens": tokens_max,
            "messages": [{"role": "user", "content": question}],
        }  # fmt: skip
        why, asked_wait_s = "", None
        for attempt in range(self._config.tries):
            if attempt:
                own_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), PAUSE_MAX_S)
                time.sleep(own_s if asked_wait_s is None else min(max(asked_wait_s, own_s), ASKED_MAX_S))
            found, why, asked_wait_s = self._once(body)
            if found is not None:
                return found
        raise StepFailed(f"the judge {self._config.label} did not answer in {self._config.tries} tries; last: {why}")

    def _once(self, body: dict[str, Any]) -> tuple[str | None, str, float | None]:
        """The reply, or None, why another try may help, and how long the endpoint wants to be left alone (s)."""
        import httpx

        try:
            response = self._client.post(f"{self._config.url.rstrip('/')}/chat/completions", json=body)
        except httpx.TransportError as error:
            return None, type(error).__name__, None
        status = response.status_code
        if status in NOT_WORTH_A_TRY:
            raise InputError(f"the judge {self._config.label} answers {status}", NOT_WORTH_A_TRY[status], "mend it")
        if status in (408, 409, 425, 429) or status >= 500:
            return None, f"status {status}", asked_s(response.headers.get("Retry-After"))
        if status != 200:
            raise StepFailed(f"the judge {self._config.label} answers {status}")
        try:
            return str(response.json()["choices"][0]["message"]["content"] or ""), "", None
        except (ValueError, LookupError, TypeError):
            return None, "a reply that is no chat completion", None

    def close(self) -> None:
        """See `Judge`."""
        self._client.close()


class LocalScorer:
    """A GGUF with the chat template that lies in it, greedy."""

    def __init__(self, config: LocalJudge, machine: Machine) -> None:
        from so8t.llama import Llama

        threads = machine.threads or int(os.environ.get("OMP_NUM_THREADS", "0"))
        self._model = Llama(config.path, context=config.context_tokens, threads=threads, gpu=machine.device != "cpu")
        template = self._model.metadata("tokenizer.chat_template")
        if not template:
            self.close()
            raise InputError(f"{config.path.name} has no chat template", "an instruct model as the judge")
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)

    def ask(self, question: str, tokens_max: int) -> str:
        """See `Judge`."""
        special = self._model.special_ids()
        begin, end = (self._model.detokenize([int(special[name])]) for name in ("bos", "eos"))
        messages = [{"role": "user", "content": question}]
        text = self._template.render(messages=messages, add_generation_prompt=True, bos_token=begin, eos_token=end)
        wants_begin = bool(special["add_bos"]) and not text.startswith(begin)
        ids = self._model.tokenize(text, add_special=wants_begin)
        if len(ids) + tokens_max > self._model.context:
            raise StepFailed(f"the question to the judge has {len(ids)} tokens, its context {self._model.context}")
        return self._model.detokenize(self._model.generate([ids], tokens_max), special=False)

    def close(self) -> None:
        """See `Judge`."""
        self._model.close()
