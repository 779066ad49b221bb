"""The endpoints over the tiny model: what leaves, what is refused, what is logged."""

import asyncio
import base64
import hashlib
import hmac
import io
import json

import httpx
import pytest
from PIL import Image

from so8t.labels import Label
from so8t.serve.answer import prompt_text
from so8t.serve.config import Serve
from so8t.serve.prompt import Turn
from so8t.serve.wording import INSTEAD
from so8t.thinking import APOLOGY, render
from tests.bake.conftest import picture
from tests.serve.rig import Scripted, rig, streamed
from tests.serve.tiny import SECRET

GOOD = render("①", Label.ALLOW, "②", "③", "Fine.")


@pytest.fixture
def tiny(model, tmp_path):
    with rig(model, tmp_path / "serve", image_size=model.image_size) as made:
        yield made


@pytest.fixture
def scripted(tmp_path):
    writer = Scripted()
    writer.reply = GOOD
    with rig(writer, tmp_path / "serve", Serve(body_mb=0.01)) as made:
        made.writer = writer
        yield made


def post(made, path: str, body: object, host: str = "127.0.0.1:4280", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with made.client(host, **headers) as client:
            if isinstance(body, bytes):
                return await client.post(path, content=body, headers={"Content-Type": "application/json"})
            return await client.post(path, json=body)

    return asyncio.run(send())


def get(made, path: str, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with made.client(**headers) as client:
            return await client.get(path)

    return asyncio.run(send())


def test_think_gives_the_final_and_the_decision(tiny):
    told = post(tiny, "/think", {"prompt": "How are you?"}).json()
    assert (told["final"], told["decision"], told["outcome"]) == ("I am fine.", "ALLOW", "answered")
    assert told["usage"]["completion_tokens"] > 10
    told = post(tiny, "/think", {"prompt": "頭が痛いです。"}).json()
    assert (told["final"], told["decision"]) == ("医師に相談してください。", "ESCALATION")


@pytest.mark.parametrize("prompt", ["Say nothing well-formed.", "Tell me a secret."])
def test_a_malformed_reply_is_an_apology_and_never_allow(tiny, prompt):
    response = post(tiny, "/think", {"prompt": prompt})
    assert response.json()["final"] == APOLOGY["en"]
    assert response.json()["decision"] == "ESCALATION"
    assert SECRET not in response.text
    assert SECRET.encode() not in tiny.log()


def test_chat_completion_whole_and_streamed(tiny):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "How do I make a bomb?"}]}
    whole = post(tiny, "/v1/chat/completions", body).json()
    choice = whole["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "I will not help."}
    assert (choice["finish_reason"], whole["decision"], whole["object"]) == ("stop", "REFUSE", "chat.completion")
    response = post(tiny, "/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"].startswith("text/event-stream")
    text, events = streamed(response.text)
    assert text == "I will not help."
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["usage"] == whole["usage"]
    assert SECRET not in response.text


def test_a_picture_is_read_and_nothing_is_fetched(tiny):
    def ask(url: str) -> httpx.Response:
        parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
        return post(tiny, "/v1/chat/completions", {"messages": [{"role": "user", "content": parts}], "max_tokens": 5})

    def packed(data: bytes) -> str:
        return "data:image/png;base64," + base64.b64encode(data).decode()

    wide = io.BytesIO()
    Image.new("RGB", (300, 20), "red").save(wide, "JPEG")
    for data in (picture(1), wide.getvalue()):
        assert ask(packed(data)).json()["usage"]["prompt_tokens"] > 16
    large = io.BytesIO()
    Image.new("1", (5000, 5000)).save(large, "PNG")
    for url, said in (
        ("http://127.0.0.1:1/x.png", "nothing is fetched"), ("file:///etc/passwd", "nothing is fetched"),
        ("data:image/png;base64,@@", "base64 is broken"), (packed(b"GIF89a"), "the image"),
        (packed(picture(1)[:200]), "cannot be read"), (packed(large.getvalue()), "pixels"),
        (packed(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "none of PNG"),
    ):  # fmt: skip
        response = ask(url)
        assert response.status_code == 400
        assert said in response.json()["error"]["message"]


def test_the_log_holds_no_text_but_what_proves_it(tiny):
    post(tiny, "/think", {"prompt": "How are you?", "seed": 5, "temperature": 0})
    (line,) = tiny.log().splitlines()
    told = json.loads(line)
    key = bytes.fromhex((tiny.audit.path.parent.parent / "audit.key").read_text(encoding="utf-8"))

    def sign(text: str) -> str:
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    assert told["prompt_hmac"] == sign(prompt_text([Turn("user", "How are you?")])) == sign('[["user","How are you?"]]')
    assert told["answer_hmac"] == sign("I am fine.")
    assert told["key_id"] == hashlib.sha256(key).hexdigest()[:16]
    assert (told["decision"], told["outcome"], told["model_sha256"]) == ("ALLOW", "answered", "0" * 64)
    assert (told["seed"], told["temperature"], told["top_p"], told["max_tokens"]) == (5, 0, 1, 1024)
    assert told["probability"] > 0.5
    assert told["latency_s"] >= 0
    assert b"How" not in line
    assert b"fine" not in line


@pytest.mark.parametrize("reply", [GOOD.replace("<|allow|>", ""), GOOD.replace("<|allow|>", "<|maybe|>")])
def test_an_unknown_class_is_handed_over(scripted, reply):
    scripted.writer.reply = reply
    told = post(scripted, "/think", {"prompt": "元気？"}).json()
    assert (told["final"], told["decision"]) == (INSTEAD[Label.ESCALATION]["ja"], "ESCALATION")


class Strict:
    """A classifier that knows one word."""

    def decide(self, texts) -> list[Label]:
        return [Label.REFUSE if "bomb" in text else Label.ALLOW for text in texts]


def test_the_stricter_of_model_and_classifier_counts(tmp_path):
    writer = Scripted()
    writer.reply = GOOD
    with rig(writer, tmp_path / "serve", classifier=Strict()) as made:
        told = post(made, "/think", {"prompt": "a bomb"}).json()
        assert (told["final"], told["decision"], told["outcome"]) == (INSTEAD[Label.REFUSE]["en"], "REFUSE", "replaced")
        turns = [
            {"role": "user", "content": "bomb"},
            {"role": "assistant", "content": "no"},
            {"role": "user", "content": "x"},
        ]
        assert post(made, "/v1/chat/completions", {"messages": turns}).json()["decision"] == "REFUSE"
        assert post(made, "/think", {"prompt": "a cake"}).json()["decision"] == "ALLOW"
        writer.reply = GOOD.replace("<|allow|>", "<|refuse|>")
        assert post(made, "/think", {"prompt": "a bomb"}).json()["final"] == "Fine."


class Never:
    """A classifier that nothing may reach."""

    def decide(self, texts) -> list[Label]:
        raise AssertionError("asked")


def test_what_the_model_cannot_read_does_not_reach_the_classifier(model, tmp_path):
    """It would read megabytes, and neither a time limit nor the client's leaving would stop it."""
    with rig(model, tmp_path / "serve", classifier=Never()) as made:
        told = post(made, "/think", {"prompt": "x" * 100_000})
        assert (told.status_code, "longer than the model's context" in told.text) == (400, True)
        assert post(made, "/think", {"prompt": "x"}).status_code == 500


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/think", {}, "prompt: Field required"),
        ("/think", {"prompt": "x", "temprature": 1}, "temprature: Extra inputs"),
        ("/think", {"prompt": "x", "temperature": 3}, "temperature"),
        ("/think", {"prompt": "x", "image": "data:,"}, "without --mmproj"),
        ("/think", b"{", "JSON"),
        ("/think", b'{"prompt": "\\ud800"}', ""),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, "last message"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": 2}, "n: "),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "tools: "),
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "role"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(scripted, path, body, said):
    response = post(scripted, path, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"


def test_the_shape_of_errors_is_openais_and_they_repeat_nothing(scripted):
    assert (
        post(
            scripted, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "model": "gpt"}
        ).status_code
        == 404
    )
    assert get(scripted, "/nothing").json()["error"]["type"] == "invalid_request_error"
    assert get(scripted, "/think").status_code == 405
    response = post(scripted, "/think", {"prompt": ["private"]})
    assert response.status_code == 400
    assert "private" not in response.text
    assert post(scripted, "/think", {"prompt": "x" * 20_000}).status_code == 413


def test_models_and_health(scripted):
    assert get(scripted, "/v1/models").json()["data"][0]["id"] == "tiny"
    assert get(scripted, "/health").json() == {"status": "ok", "inside": 0}


def test_a_foreign_host_or_origin_is_refused(scripted):
    ask = {"prompt": "x"}
    assert post(scripted, "/think", ask, host="evil.example:4280").status_code == 403
    assert post(scripted, "/think", ask, Origin="https://evil.example").status_code == 403
    assert post(scripted, "/think", ask, Origin="null").status_code == 403
    assert post(scripted, "/think", ask, Origin="http://localhost:3000").status_code == 200
    assert post(scripted, "/think", ask, host="localhost").status_code == 200
    assert post(scripted, "/think", ask, host="[::1]:4280").status_code == 200
    assert get(scripted, "/v1/models", Host="evil.example").status_code == 403


def test_a_page_cannot_post_what_a_browser_sends_without_asking(scripted):
    async def send() -> httpx.Response:
        async with scripted.client() as client:
            return await client.post("/think", content=b'{"prompt": "x"}', headers={"Content-Type": "text/plain"})

    assert asyncio.run(send()).status_code == 400


def test_the_key_is_asked_for(tmp_path):
    writer = Scripted()
    writer.reply = GOOD
    with rig(writer, tmp_path / "serve", key="correct horse") as made:
        ask = {"prompt": "x"}
        assert post(made, "/think", ask).status_code == 401
        assert post(made, "/think", ask, Authorization="Bearer correct hors").status_code == 401
        assert post(made, "/think", ask, Authorization="Basic correct horse").status_code == 401
        assert get(made, "/v1/models").headers["www-authenticate"] == "Bearer"
        assert post(made, "/think", ask, Authorization="Bearer correct horse").status_code == 200
        assert get(made, "/health").status_code == 200


def test_no_answer_leaves_without_its_line(scripted, monkeypatch):
    def full(**facts: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scripted.audit, "write", full)
    response = post(scripted, "/think", {"prompt": "x"})
    assert response.status_code == 500
    assert "Fine" not in response.text
    response = post(scripted, "/think", {"prompt": "x", "stream": True})
    assert "Fine" not in response.text
    assert "server_error" in response.text
