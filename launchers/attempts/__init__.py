"""How an attempt begins, ends and is remembered."""
