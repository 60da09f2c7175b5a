"""A Llama of 60,000 weights and a tokenizer of 512 tokens, as a directory that transformers reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainers.data.sources import PYDOC_TOPICS, read_text

VOCABULARY = 512


def write_tiny_llama(directory: Path) -> Path:
    """Its config, without weights, and a byte-level tokenizer that has learned from the standard library's help."""
    transformers = pytest.importorskip("transformers")
    tokenizer = pytest.importorskip("tokenizers").ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([read_text(PYDOC_TOPICS)[:200_000]], vocab_size=VOCABULARY, show_progress=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(directory)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    config.save_pretrained(directory)
    return directory
