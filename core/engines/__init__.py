"""The SGLang servers that a rank drives: found, followed through restarts, paired with trainer ranks."""
