"""llama.cpp in this process, in terms of token ids and arrays: what bake's gates and the benchmark need.

Prompts are lists of parts: token ids, or image embeddings `[tokens, hidden]` from `ImageReader.embed`.
So every backend is given the identical ids, and no text is tokenised twice in two ways.

LongRoPE: llama.cpp takes the long factors as soon as the *allocated* context is longer than the original
one, transformers by the length of the text. So the default here is a context no longer than the original.
"""

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import llama_cpp.llama_cpp as lib
import numpy as np
from llama_cpp import mtmd_cpp as mtmd
from numpy.typing import NDArray

from so8t import pulse
from so8t.errors import InputError, ResourceError, StepFailed
from so8t.thinking import IMAGE_TOKEN

Floats = NDArray[np.float32]
Part = Sequence[int] | Floats
KV = Literal["F16", "F32"]
Check = Callable[[], None]

CONTEXT_MAX = 4096
CONTEXT_STEP = 256  # llama.cpp rounds the context up to this
UBATCH = 512
WARN, ERROR = 2, 3  # ggml_log_level

_log = logging.getLogger("so8t.llama")
_recent: deque[str] = deque(maxlen=20)


def _record(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Native log lines go to logging, not to stderr; the last warnings explain a failure."""
    line = text.decode("utf-8", errors="replace").rstrip()
    if line and level in (WARN, ERROR):
        _recent.append(line)
        _log.debug(line)


_on_log = lib.llama_log_callback(_record)  # lives as long as the module: native code keeps the pointer


def silence() -> None:
    """Keep llama.cpp and mtmd off stderr, and start the backend; harmless when repeated."""
    nothing = ctypes.c_void_p(0)
    lib.llama_log_set(_on_log, nothing)
    mtmd.mtmd_log_set(_on_log, nothing)
    mtmd.mtmd_helper_log_set(_on_log, nothing)
    lib.llama_backend_init()


def recent_log() -> str:
    """The last warnings and errors of llama.cpp."""
    return "\n".join(_recent)


class Llama:
    """One GGUF file, opened. Not thread-safe; one prompt at a time, nothing is kept between calls."""

    def __init__(
        self,
        path: Path,
        *,
        context: int = 0,
        kv: KV = "F16",
        threads: int = 0,
        gpu: bool = False,
        vocab_only: bool = False,
    ) -> None:
        """Open `path`; `context` 0 takes the original (un-stretched) one, at most 4096 tokens.

        Raises InputError where llama.cpp cannot read the file, ResourceError where memory is short.
        """
        silence()
        _recent.clear()
        self._context: Any = None
        params = lib.llama_model_default_params()
        params.n_gpu_layers = -1 if gpu else 0
        params.vocab_only = vocab_only
        self._model: Any = lib.llama_model_load_from_file(str(path).encode("utf-8"), params)
        if not self._model:
            raise InputError(f"llama.cpp cannot load {path}\n{recent_log()}", "a GGUF file that it knows")
        self._vocab: Any = lib.llama_model_get_vocab(self._model)
        self.path, self.threads = path, threads or os.cpu_count() or 1
        self.vocab_size = int(lib.llama_vocab_n_tokens(self._vocab))
        self.hidden = int(lib.llama_model_n_embd(self._model))
        self.context = 0
        if not vocab_only:
            self._open_context(context or self._original_context(), kv)

    def _original_context(self) -> int:
        architecture = self.metadata("general.architecture")
        original = self.metadata(f"{architecture}.rope.scaling.original_context_length")
        trained = int(original or lib.llama_model_n_ctx_train(self._model))
        return min(trained, CONTEXT_MAX)

    def _open_context(self, context: int, kv: KV) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = -(-context // CONTEXT_STEP) * CONTEXT_STEP
        params.n_ubatch = min(params.n_ctx, UBATCH)
        params.n_threads = params.n_threads_batch = self.threads
        params.type_k = params.type_v = {"F16": lib.GGML_TYPE_F16, "F32": lib.GGML_TYPE_F32}[kv]
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = int(params.n_ctx)
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            self.close()
            raise ResourceError(f"no context of {self.context} tokens for {self.path}\n{recent_log()}", "enough memory")
        self._memory = lib.llama_get_memory(self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the native memory; harmless when repeated."""
        if self._context:
            lib.llama_free(self._context)
            self._context = None
        if self._model:
            lib.llama_model_free(self._model)
            self._model = None

    def metadata(self, key: str) -> str:
        """A metadata value as text, empty where the file has none."""
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            needed = lib.llama_model_meta_val_str(self._model, key.encode("utf-8"), buffer, size)
            if needed < size:
                return buffer.value.decode("utf-8") if needed >= 0 else ""
            size = needed + 1

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Token ids as llama.cpp sees the text; a BOS is added only with `add_special`, if the file says so."""
        data = text.encode("utf-8")
        size = len(data) + 8
        buffer = (lib.llama_token * size)()
        count = lib.llama_tokenize(self._vocab, data, len(data), buffer, size, add_special, parse_special)
        if count < 0:
            raise StepFailed(f"llama.cpp wants {-count} tokens for a text of {len(data)} bytes")
        return list(buffer[:count])

    def detokenize(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Text of token ids; `special` shows tags and control tokens."""
        return b"".join(self.piece(token, special=special) for token in ids).decode("utf-8", errors="replace")

    def piece(self, token: int, *, special: bool = True) -> bytes:
        """Bytes of one token, which may be a part of a character."""
        buffer = ctypes.create_string_buffer(256)
        count = lib.llama_token_to_piece(self._vocab, token, buffer, 256, 0, special)
        return buffer.raw[: max(count, 0)]

    def added_tokens(self) -> dict[str, int]:
        """Ids of the tokens that are looked for in any text before it is tokenised, and of the control tokens."""
        kinds = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_USER_DEFINED | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        return {
            lib.llama_vocab_get_text(self._vocab, token).decode("utf-8"): token
            for token in range(self.vocab_size)
            if lib.llama_vocab_get_attr(self._vocab, token) & kinds
        }

    def ends(self) -> list[int]:
        """Token ids at which llama.cpp ends a generation."""
        return [token for token in range(self.vocab_size) if lib.llama_vocab_is_eog(self._vocab, token)]

    def special_ids(self) -> dict[str, int | bool]:
        """`bos`, `eos`, `pad`, `add_bos` and `add_eos` as llama.cpp uses them."""
        return {
            "bos": int(lib.llama_vocab_bos(self._vocab)),
            "eos": int(lib.llama_vocab_eos(self._vocab)),
            "pad": int(lib.llama_vocab_pad(self._vocab)),
            "add_bos": bool(lib.llama_vocab_get_add_bos(self._vocab)),
            "add_eos": bool(lib.llama_vocab_get_add_eos(self._vocab)),
        }

    def logits(self, parts: Sequence[Part]) -> Floats:
        """Logits `[positions, vocab]` at every position of a prompt."""
        return np.concatenate(self._prefill(parts, every=True))

    def last_logits(self, parts: Sequence[Part]) -> Floats:
        """Logits `[vocab]` for the token that follows a prompt."""
        last: Floats = self._prefill(parts, every=False)[-1][-1]
        return last

    def score(self, parts: Sequence[Part], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural log-probability of each token of each continuation; the prompt is evaluated once."""
        first = log_softmax(self.last_logits(parts))
        start = self._length(parts)
        scores = []
        for ids in continuations:
            rows = [first]
            if len(ids) > 1:
                rows.extend(log_softmax(self._decode(ids[:-1], start, every=True)))
                lib.llama_memory_seq_rm(self._memory, 0, start, -1)
            scores.append([float(row[token]) for row, token in zip(rows, ids, strict=True)])
        return scores

    def generate(self, parts: Sequence[Part], new_tokens_max: int, stop: Sequence[int] | None = None) -> list[int]:
        """Greedy continuation without the stop token; `stop` defaults to llama.cpp's own list."""
        return self.extend(self.last_logits(parts), self._length(parts), new_tokens_max, stop)

    def extend(self, logits: Floats, position: int, new_tokens_max: int, stop: Sequence[int] | None) -> list[int]:
        """The rest of `generate`, after a prompt of `position` tokens whose last logits `[vocab]` these are."""
        ends = set(self.ends() if stop is None else stop)
        greedy = self._follow(logits, position, lambda logits: int(np.argmax(logits)), new_tokens_max)
        return list(takewhile(lambda token: token not in ends, greedy))

    def stream(
        self, parts: Sequence[Part], pick: Callable[[Floats], int], new_tokens_max: int, check: Check = lambda: None
    ) -> Iterator[int]:
        """The tokens that `pick` chooses from logits `[vocab]`, until the context is full; no token ends it.

        `check` is called before each part and each token is evaluated, and ends the work by raising.
        """
        logits = self._prefill(parts, every=False, check=check)[-1][-1]
        yield from self._follow(logits, self._length(parts), pick, new_tokens_max, check)

    def _follow(
        self, logits: Floats, position: int, pick: Callable[[Floats], int], count: int, check: Check = lambda: None
    ) -> Iterator[int]:
        for left in range(count, 0, -1):
            if position >= self.context:
                return
            token = pick(logits)
            yield token
            if left > 1:
                check()
                logits = self._decode([token], position, every=False)[-1]
                position += 1

    def _length(self, parts: Sequence[Part]) -> int:
        return sum(len(part) for part in parts)

    def _prefill(self, parts: Sequence[Part], *, every: bool, check: Check = lambda: None) -> list[Floats]:
        length = self._length(parts)
        if not 0 < length <= self.context:
            raise InputError(
                f"a prompt of {length} tokens", f"1 to {self.context}", "shorten it or open the model with more context"
            )
        lib.llama_memory_clear(self._memory, True)
        position, found = 0, []
        filled = [part for part in parts if len(part)]
        for part in filled:
            check()
            found.append(self._decode(part, position, every=every))
            position += len(part)
        return found

    def _decode(self, part: Part, position: int, *, every: bool) -> Floats:
        """Evaluate one part at `position`; logits of all its positions, or of its last one."""
        count = len(part)
        embedded = isinstance(part, np.ndarray) and part.ndim == 2
        batch = lib.llama_batch_init(count, self.hidden if embedded else 0, 1)
        try:
            batch.n_tokens = count
            if embedded:
                data = np.ascontiguousarray(part, dtype=np.float32)
                ctypes.memmove(batch.embd, data.ctypes.data, data.nbytes)
            for index in range(count):
                if not embedded:
                    batch.token[index] = int(part[index])
                batch.pos[index] = position + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = every or index == count - 1
            code = lib.llama_decode(self._context, batch)
            if code:
                raise StepFailed(
                    f"llama_decode gave {code} for {count} tokens at {position} of {self.path.name}\n{recent_log()}"
                )
            pulse.beat()
            rows = count if every else 1
            logits = lib.llama_get_logits(self._context)
            return np.ctypeslib.as_array(logits, shape=(rows, self.vocab_size)).copy()
        finally:
            lib.llama_batch_free(batch)


class ImageReader:
    """llama.cpp's image tower from an mmproj file, tied to an open model."""

    def __init__(self, path: Path, model: Llama, *, gpu: bool = False) -> None:
        """Open `path`; InputError where it does not fit the model (for example another hidden size)."""
        _recent.clear()
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = gpu
        params.print_timings = False
        params.n_threads = model.threads
        params.warmup = False
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.marker = IMAGE_TOKEN  # no user can write it: models.neutral
        params.media_marker = self.marker.encode("utf-8")
        self.model, self.path = model, path
        self._mtmd: Any = mtmd.mtmd_init_from_file(str(path).encode("utf-8"), model._model, params)
        if not self._mtmd:
            raise InputError(f"llama.cpp cannot load {path}\n{recent_log()}", "an mmproj file made for this model")
        self.image_size = _image_size(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the native memory; harmless when repeated."""
        if self._mtmd:
            mtmd.mtmd_free(self._mtmd)
            self._mtmd = None

    def embed(self, png: bytes) -> Floats:
        """Embeddings `[tokens, hidden]` of an image (PNG or any other format that Pillow reads)."""
        with self._chunks(self.marker, png) as chunks:
            (chunk,) = chunks.images()
            return self._encode(chunk)

    def split(self, text: str, png: bytes) -> list[Part]:
        """Parts of a text with one marker (`marker`), tokenised and embedded by mtmd itself."""
        with self._chunks(text, png) as chunks:
            return [chunks.text_ids(chunk) if kind == "text" else self._encode(chunk) for kind, chunk in chunks.each()]

    def last_logits(self, text: str, png: bytes) -> Floats:
        """Logits `[vocab]` after a text with one marker, all of it evaluated by mtmd's own helper."""
        model = self.model
        lib.llama_memory_clear(model._memory, True)
        past = lib.llama_pos(0)
        with self._chunks(text, png) as chunks:
            code = mtmd.mtmd_helper_eval_chunks(
                self._mtmd, model._context, chunks.pointer, 0, 0, model.context, True, ctypes.byref(past)
            )
        if code:
            raise StepFailed(f"mtmd could not evaluate the prompt ({code})\n{recent_log()}")
        pulse.beat()
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(model._context, -1), shape=(model.vocab_size,)).copy()

    def _chunks(self, text: str, png: bytes) -> "_Chunks":
        """InputError for an image of another size: mtmd would scale it in its own way, and nobody would see."""
        pixels = _pixels(png)
        height, width, _ = pixels.shape
        if (width, height) != (self.image_size, self.image_size):
            raise InputError(
                f"an image of {width}x{height}",
                f"{self.image_size}x{self.image_size}, the tower's size",
                "scale it as preprocess does: square, preprocess.resampling",
            )
        return _Chunks(self._mtmd, text, pixels)

    def _encode(self, chunk: Any) -> Floats:
        if mtmd.mtmd_encode_chunk(self._mtmd, chunk):
            raise StepFailed(f"mtmd could not encode an image\n{recent_log()}")
        pulse.beat()
        tokens = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        data = mtmd.mtmd_get_output_embd(self._mtmd)
        return np.ctypeslib.as_array(data, shape=(tokens, self.model.hidden)).copy()


class _Chunks:
    """mtmd's division of one text with one image; frees what it holds."""

    def __init__(self, context: Any, text: str, pixels: NDArray[np.uint8]) -> None:
        height, width, _ = pixels.shape
        buffer = (ctypes.c_uint8 * pixels.size).from_buffer_copy(pixels.tobytes())
        self._bitmap: Any = mtmd.mtmd_bitmap_init(width, height, buffer)
        self.pointer: Any = mtmd.mtmd_input_chunks_init()
        data = text.encode("utf-8")
        given = mtmd.mtmd_input_text(text=data, text_len=len(data), add_special=False, parse_special=True)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(self._bitmap)
        code = mtmd.mtmd_tokenize(context, self.pointer, ctypes.byref(given), bitmaps, 1)
        if code:
            self._free()
            raise InputError(
                f"mtmd cannot divide the prompt ({code})\n{recent_log()}", "a text with exactly one image marker"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free()

    def _free(self) -> None:
        mtmd.mtmd_input_chunks_free(self.pointer)
        mtmd.mtmd_bitmap_free(self._bitmap)

    def each(self) -> list[tuple[str, Any]]:
        """(text | image, chunk) in order."""
        chunks = [mtmd.mtmd_input_chunks_get(self.pointer, i) for i in range(mtmd.mtmd_input_chunks_size(self.pointer))]
        names = {mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT: "text", mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE: "image"}
        return [(names[mtmd.mtmd_input_chunk_get_type(chunk)], chunk) for chunk in chunks]

    def images(self) -> list[Any]:
        """The image chunks."""
        return [chunk for kind, chunk in self.each() if kind == "image"]

    def text_ids(self, chunk: Any) -> list[int]:
        """Token ids of a text chunk."""
        count = ctypes.c_size_t(0)
        ids = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        return list(ids[: count.value])


def _image_size(path: Path) -> int:
    """Side of the square that an mmproj file's tower reads, in pixels."""
    import gguf

    return int(gguf.GGUFReader(path).get_field("clip.vision.image_size").contents())


def _pixels(png: bytes) -> NDArray[np.uint8]:
    """RGB pixels `[height, width, 3]`."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Natural log-probabilities over the last axis, in float64."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
