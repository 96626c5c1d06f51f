"""The engine adapter: starting an SGLang server, talking to it, and giving it weights.

SGLang itself runs in its own processes and is not imported here; the adapter speaks HTTP and shares tensors through
torch.multiprocessing. Importing this package loads neither torch nor httpx.
"""
