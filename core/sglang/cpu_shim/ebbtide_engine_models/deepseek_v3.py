"""DeepSeek-V3, Moonlight and Kimi-K2, which SGLang has in the file of DeepSeek-V2."""

from sglang.srt.models.deepseek_v2 import DeepseekV3ForCausalLM

EntryClass = [DeepseekV3ForCausalLM]
