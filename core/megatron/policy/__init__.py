"""The model that is trained: how it is built, what others get of its weights, and how it learns."""
