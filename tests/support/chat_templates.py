"""Chat templates in the manner of three families and in the form of Qwen3's, and a tokenizer for all of them."""

from __future__ import annotations

from pathlib import Path

from core.pretrained.tokenizer import Tokenizer

# an end-of-turn token, headers, content trimmed; the tools in the first message of the user
LLAMA = (
    "{{ bos_token }}"
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\n\n' }}"
    "{% if tools and loop.first %}{{ 'You may call: ' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '\n\n' }}"
    "{% endif %}"
    "{{ m.content | trim }}{{ '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# an end-of-turn token and a newline; results of tools are the user's; thinking is stripped from turns before the last
# message of the user
QWEN = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% elif m.role == 'assistant' and loop.index0 < ns.last and '</think>' in m.content %}"
    "{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# no end of turn at all: the model ends its turn with the marker of whoever is next
GLM = (
    "{{ '[gMASK]<sop>' }}"
    "{% if tools %}{{ '<|system|>\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}"
    "{{ ('<|observation|>' if m.role == 'tool' else '<|' + m.role + '|>') + '\n' + m.content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
QWEN3 = Path(__file__).with_name("qwen3_form.jinja").read_text(encoding="utf-8")
TEMPLATES = {"llama": LLAMA, "qwen": QWEN, "glm": GLM}
ENDS = {"llama": "<|eot_id|>", "qwen": "<|im_end|>", "qwen3": "<|im_end|>", "glm": "<|observation|>"}
SPECIAL = [
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"),
    *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
]


def tokenizer(family: str) -> Tokenizer:
    """Bytes as tokens, and the special ones of all families; its template is that of `family`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train([__file__], vocab_size=400, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token="<|begin_of_text|>",
        chat_template={**TEMPLATES, "qwen3": QWEN3}[family],
    )
    ends = ["<|user|>", "<|observation|>"] if family == "glm" else [ENDS[family]]
    return Tokenizer(fast, fast.convert_tokens_to_ids(ends))
