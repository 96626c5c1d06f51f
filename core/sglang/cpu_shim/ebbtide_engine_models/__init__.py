"""The model families that ebbtide trains, for SGLang's SGLANG_EXTERNAL_MODEL_PACKAGE.

With it SGLang (0.5.21) imports these few model files instead of all of its two hundred. Other architectures still work:
SGLang then imports the rest.
"""
