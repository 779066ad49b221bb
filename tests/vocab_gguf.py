"""A GGUF that holds nothing but a vocabulary, for llama.cpp's own tokenizer."""

from pathlib import Path

import gguf

from so8t.bake import gguf_vocab


def write_vocabulary(folder: Path, path: Path, size: int) -> Path:
    """The vocabulary of a tokenizer folder, `size` rows."""
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_name("so8t-phi-3")
    for add, value in (
        (writer.add_context_length, 4096),
        (writer.add_embedding_length, 64),
        (writer.add_feed_forward_length, 128),
        (writer.add_block_count, 2),
        (writer.add_head_count, 1),
        (writer.add_layer_norm_rms_eps, 1e-5),
    ):
        add(value)
    gguf_vocab.add_vocabulary(writer, folder, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
