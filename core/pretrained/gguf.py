"""One GGUF file into one HuggingFace directory, in float32.

The weights are read by transformers. The tokenizer is built here from the GGUF's own tables: transformers' conversion
takes <|im_start|> for the end token of SmolLM2 and leaves out its digit splitting.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # type: ignore[import-untyped]

from core.pretrained.transformers_import import import_transformers

CONTROL_TOKEN = 3  # value of tokenizer.ggml.token_type for special tokens
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
PRE_TOKENIZERS = {  # tokenizer.ggml.pre: how text is cut before byte-pair merging
    "default": BYTE_LEVEL,
    "gpt-2": BYTE_LEVEL,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]),
}


def convert(gguf: Path, directory: Path) -> None:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer of `gguf` to `directory`.

    Raises:
        ValueError: the tokenizer is of a kind that is not known here.
    """
    metadata = read_metadata(gguf)
    build_tokenizer(metadata).save_pretrained(directory)
    _save_model(gguf, metadata, directory)


def read_metadata(gguf: Path) -> dict[str, Any]:
    """All key-value pairs of the file, without its tensors."""
    from gguf import GGUFReader

    return {key: field.contents() for key, field in GGUFReader(os.fspath(gguf)).fields.items() if field.types}


def build_tokenizer(metadata: dict[str, Any]) -> Any:
    """transformers' fast tokenizer from a GGUF's token, merge and special-token tables."""
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ValueError(
            f"the GGUF's tokenizer is {kind!r} with pre-tokenizer {pre!r}; wanted 'gpt2' with one of "
            f"{sorted(PRE_TOKENIZERS)}: convert the model to a HuggingFace directory with another tool"
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    special = {
        f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in metadata
    }
    fast = import_transformers().PreTrainedTokenizerFast(
        tokenizer_object=_byte_pair_encoder(metadata, tokens, special.get("unk_token")),
        clean_up_tokenization_spaces=False,
        model_max_length=metadata[f"{metadata['general.architecture']}.context_length"],
        **special,
    )
    fast.chat_template = metadata.get("tokenizer.chat_template")
    return fast


def _byte_pair_encoder(metadata: dict[str, Any], tokens: list[str], unknown: str | None) -> Tokenizer:
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[metadata.get("tokenizer.ggml.pre", "default")]
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


_ID_KEYS = (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))


def _save_model(gguf: Path, metadata: dict[str, Any], directory: Path) -> None:
    transformers = import_transformers()
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    # GGUF keeps this as a float32: 1e-5 arrives as 9.999999747378752e-06, which no longer equals the published config
    model.config.rms_norm_eps = float(str(np.float32(model.config.rms_norm_eps)))
    ids = {f"{name}_token_id": metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _ID_KEYS}
    model.config.update(ids)
    model.config.name_or_path = ""
    model.generation_config = transformers.GenerationConfig(**ids)
    model.save_pretrained(directory, max_shard_size="1TB")
