"""What `so8t serve` may be told; every field is an option of the command."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from so8t.section import Section

Positive = Annotated[float, Field(gt=0)]
Resampling = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class Serve(Section):
    """How it serves: who may call, how much, how long, and what is drawn where a request does not say."""

    host: str = "127.0.0.1"
    """Address to bind. Any other than this machine's own needs a key in SO8T_SERVE_KEY."""
    port: Annotated[int, Field(ge=0, le=65535)] = 4280
    """Port; 0 takes a free one."""
    allowed_host: tuple[str, ...] = ()
    """Further names under which clients may call it (the Host header); needed with 0.0.0.0."""
    context: Annotated[int, Field(ge=0)] = 0
    """Tokens of prompt and reply together; 0 takes the model's original context, at most 4096."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 takes the machine's cores."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest reply in tokens, thinking included; a request may ask for less."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Of the sampling, where a request names none; 0 is greedy. The class is never sampled."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.5
    """A class that the model gives less probability than this becomes ESCALATION."""
    queue: Annotated[int, Field(ge=0)] = 16
    """Requests that may wait; one more gets 503 with Retry-After."""
    queue_s: Positive = 60.0
    """Longest wait for the model."""
    reply_s: Positive = 300.0
    """Longest time for one reply."""
    body_s: Positive = 20.0
    """Longest time for a request's body to arrive."""
    body_mb: Annotated[float, Field(gt=0, le=256)] = 8.0
    """Largest request body, images included."""
    image_megapixels: Annotated[float, Field(gt=0, le=50)] = 16.0
    """Largest image."""
    resampling: Resampling = "bilinear"
    """How an image is brought to the tower's size: as preprocess.resampling was in training."""
    stop_s: Annotated[float, Field(ge=0)] = 10.0
    """After a signal to stop, what is being answered has so long to end."""
    audit_mb: Annotated[float, Field(gt=0)] = 64.0
    """Size at which the audit log is rotated."""
    audit_files: Annotated[int, Field(ge=1)] = 16
    """Rotated audit logs that are kept."""


class Files(Section):
    """What is served."""

    model: Path
    """GGUF file of the model."""
    mmproj: Path | None = None
    """GGUF file of its image tower."""
    classifier: Path | None = None
    """Folder of a four_class artifact that also judges each prompt; the stricter class counts."""
    base: Path | None = None
    """Folder of the base that the classifier was trained on."""
