"""Speculative decoding: an engine drafts several tokens, and the model takes those it would have sampled. No torch.

Source: SGLang 0.5.16, speculative/ngram_worker.py, standalone_worker_v2.py, eagle_utils.py (`eagle_sample`) and
layers/logprob_processor.py (`compute_spec_v2_logprobs`): the samples, and their log-probs, are those of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.config.paths import DRAFT_MODEL

PREFIX = "speculative_"
ALGORITHM = f"{PREFIX}algorithm"
DRAFT_TOKENS = f"{PREFIX}num_draft_tokens"
STEPS, BRANCHES = f"{PREFIX}num_steps", f"{PREFIX}eagle_topk"
NGRAM = "NGRAM"  # it drafts what has followed the same tokens before, without a model
STANDALONE = "STANDALONE"  # a smaller model of the same tokenizer drafts
USUAL_DRAFT_TOKENS = {NGRAM: 12, STANDALONE: 4}  # SGLang's own numbers
LOGITS_AT_ONCE = 4  # logits, the same by temperature, their log-probs, and a copy of the rows that were taken
LOGIT_BYTES = 4
POSITION_BYTES = 8
INDEX_BYTES = POSITION_BYTES + 1  # of a token that a drafted one may look at: where it lies, and whether it may


def algorithm(options: Mapping[str, Any]) -> str:
    """Name of the algorithm that a run file's options choose, as SGLang has it; empty: none."""
    return str(options.get(ALGORITHM) or "").upper()


def tokens_at_once(options: Mapping[str, Any]) -> int:
    """Tokens that the model computes of a sample at a time: 1, or all that are drafted, with the one that follows."""
    chosen = algorithm(options)
    if not chosen:
        return 1
    drafted, steps = options.get(DRAFT_TOKENS), options.get(STEPS)
    if not isinstance(drafted, int) and chosen == STANDALONE and isinstance(steps, int):
        drafted = steps + 1
    return drafted if isinstance(drafted, int) else USUAL_DRAFT_TOKENS.get(chosen, USUAL_DRAFT_TOKENS[NGRAM])


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What an engine is told of a model that drafts; nothing without one.

    SGLang wants all three numbers or none. Its weights wait on the host while the engine has given its memory back.
    """
    if algorithm(options) != STANDALONE:
        return {}
    drafted = tokens_at_once(options)
    numbers = {STEPS: drafted - 1, BRANCHES: 1, DRAFT_TOKENS: drafted}
    return {**numbers, "enable_draft_weights_cpu_backup": True}


def draft_model(options: Mapping[str, Any]) -> str | None:
    """The directory of the model that drafts; None: none does, or it is not said."""
    path = options.get(DRAFT_MODEL) if algorithm(options) == STANDALONE else None
    return path if isinstance(path, str) else None


def verify_bytes(num_tokens: int, vocab_size: int) -> int:
    """Bytes, on each of an engine's GPUs, in which drafted tokens are held against the model's logits."""
    return LOGITS_AT_ONCE * LOGIT_BYTES * num_tokens * vocab_size


def index_bytes(num_tokens: int, context_tokens: int) -> int:
    """Bytes, on each of an engine's GPUs, of what triton's CUDA graphs of drafts keep: an index and a mask.

    Args:
        num_tokens: of the largest graph. context_tokens: of the longest sequence that the engine takes.
    """
    return INDEX_BYTES * num_tokens * context_tokens


def draft_graph_bytes(samples: int, drafted: int, context_tokens: int, vocab_size: int) -> int:
    """Bytes, on each of an engine's GPUs, of what the graphs of a model that drafts keep: of each of its steps, and of
    each token that it reads anew, where the tokens before lie; the logits of the latter.

    Args:
        samples: of the largest graph. drafted: tokens at once. context_tokens: as above.
    """
    where = POSITION_BYTES * (drafted - 1 + drafted) * samples * context_tokens
    return where + LOGIT_BYTES * samples * drafted * vocab_size
