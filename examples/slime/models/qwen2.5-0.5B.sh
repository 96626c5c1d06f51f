# The sizes of the model, as Megatron is told them: config.json has the same.
MODEL_ARGS=(
   --num-layers 24 --hidden-size 896 --ffn-hidden-size 4864 --num-attention-heads 14
   --group-query-attention --num-query-groups 2 --vocab-size 151936 --rotary-base "${ROTARY_BASE:-1000000}"
   --swiglu --normalization RMSNorm --norm-epsilon 1e-6 --add-qkv-bias --disable-bias-linear
   --use-rotary-position-embeddings
)
