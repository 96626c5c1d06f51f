"""Speculative decoding: an engine drafts several tokens, and the model takes those it would have sampled. No torch.

Source: SGLang 0.5.16, speculative/ngram_worker.py, eagle_utils.py (`eagle_sample`) and layers/logprob_processor.py
(`compute_spec_v2_logprobs`): the samples, and their log-probs, are those of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "speculative_"
ALGORITHM = f"{PREFIX}algorithm"
DRAFT_TOKENS = f"{PREFIX}num_draft_tokens"
NGRAM = "NGRAM"  # it drafts what has followed the same tokens before, without a model
USUAL_DRAFT_TOKENS = 12  # SGLang's own number for it
LOGITS_AT_ONCE = 4  # logits, the same by temperature, their log-probs, and a copy of the rows that were taken
LOGIT_BYTES = 4
INDEX_BYTES = 8 + 1  # of a token that a drafted one may look at: where it lies, and whether it may


def algorithm(options: Mapping[str, Any]) -> str:
    """Name of the algorithm that a run file's options choose, as SGLang has it; empty: none."""
    return str(options.get(ALGORITHM) or "").upper()


def tokens_at_once(options: Mapping[str, Any]) -> int:
    """Tokens that the model computes of a sample at a time: 1, or all that are drafted, with the one that follows."""
    if not algorithm(options):
        return 1
    drafted = options.get(DRAFT_TOKENS)
    return drafted if isinstance(drafted, int) else USUAL_DRAFT_TOKENS


def verify_bytes(num_tokens: int, vocab_size: int) -> int:
    """Bytes, on each of an engine's GPUs, in which drafted tokens are held against the model's logits."""
    return LOGITS_AT_ONCE * LOGIT_BYTES * num_tokens * vocab_size


def index_bytes(num_tokens: int, context_tokens: int) -> int:
    """Bytes, on each of an engine's GPUs, of what triton's CUDA graphs of drafts keep: an index and a mask.

    Args:
        num_tokens: of the largest graph. context_tokens: of the longest sequence that the engine takes.
    """
    return INDEX_BYTES * num_tokens * context_tokens
