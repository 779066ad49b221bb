"""What may be sent. Unknown fields are refused: an ignored one would pass for obeyed."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from so8t.serve.prompt import BadRequest, Turn

Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Tokens = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Drawn(_Strict):
    """How to sample; what is left out is the server's."""

    temperature: Temperature | None = None
    top_p: Share | None = None
    seed: Seed | None = None
    max_tokens: Tokens | None = None
    stream: bool = False


class Think(Drawn):
    """A request to /think: one question, at most one image."""

    prompt: Annotated[str, Field(min_length=1)]
    image: str | None = None
    """A data URL."""


class TextPart(_Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """A data URL; `detail` is accepted and has no meaning here."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Strict):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None

    @property
    def text(self) -> str:
        """Its words."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> list[str]:
        """Its data URLs."""
        if isinstance(self.content, str):
            return []
        return [part.image_url.url for part in self.content if isinstance(part, ImagePart)]


class StreamOptions(_Strict):
    """Whether the last chunk before the end tells the usage."""

    include_usage: bool = False


class Chat(Drawn):
    """A request to /v1/chat/completions. Fields whose only meaning here is their default are accepted with that."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    model: str | None = None
    max_completion_tokens: Tokens | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    frequency_penalty: Literal[0] = 0
    presence_penalty: Literal[0] = 0
    logprobs: Literal[False] = False
    store: Literal[False] | None = None
    stop: None = None
    tools: None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's")
        return self

    def turns(self) -> tuple[Turn, ...]:
        """The conversation without its image."""
        return tuple(Turn(message.role, message.text) for message in self.messages)

    def image(self) -> str | None:
        """The one image; BadRequest where there are more, or it is not in the last message."""
        before = [url for message in self.messages[:-1] for url in message.images]
        last = self.messages[-1].images
        if before or len(last) > 1:
            raise BadRequest("one image at most, in the last message")
        return last[0] if last else None
