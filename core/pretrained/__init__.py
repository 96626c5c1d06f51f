"""A model's files: where they are, what shape they have, its tokenizer, weights in and out."""
