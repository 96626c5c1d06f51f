#!/bin/bash
# A launch script in the manner of slime's, for `ebbtide import-slime`: nothing of it is run.
set -ex

NUM_GPUS=${NUM_GPUS:-8}
HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" &>/dev/null && pwd)"
source "${HERE}/models/qwen2.5-0.5B.sh"

CKPT_ARGS=(
   --hf-checkpoint ${MODELS_DIR}/Qwen2.5-0.5B-Instruct
   --ref-load ${MODELS_DIR}/Qwen2.5-0.5B-Instruct_torch_dist
   --load /checkpoints/mine
   --save /checkpoints/mine
   --save-interval 20
)

ROLLOUT_ARGS=(
   --prompt-data ${DATA_DIR:-/data}/train.parquet
   --input-key messages
   --label-key label
   --apply-chat-template
   --rollout-shuffle
   --rm-type math
   --num-rollout 100
   --rollout-batch-size 32
   --n-samples-per-prompt 8
   --rollout-max-response-len 1024
   --num-steps-per-rollout 2
)

EVAL_ARGS=(
   --eval-interval 20
   --eval-prompt-data held_out /data/test.parquet@[0:200]
   # --eval-top-p 0.7
)

PERF_ARGS=(
   --tensor-model-parallel-size 1
   --context-parallel-size 2
   --use-dynamic-batch-size
   --max-tokens-per-gpu 4608
   --optimizer-cpu-offload
   --no-check-for-nan-in-loss-and-grad
)

GRPO_ARGS=(
   --advantage-estimator grpo
   --use-kl-loss
   --kl-loss-coef 0.00
   --eps-clip 0.2
   --eps-clip-high 0.28
)

OPTIMIZER_ARGS=(--optimizer adam --lr 1e-6 --lr-decay-style constant --weight-decay 0.1 --adam-beta2 0.98)
SGLANG_ARGS=(--rollout-num-gpus-per-engine 1 --sglang-mem-fraction-static 0.6 --sglang-schedule-policy lpm)

RUNTIME_ENV_JSON=$(cat <<JSON
{"env_vars": {"PYTHONPATH": "/root/Megatron-LM/", "NCCL_IB_TC": "160"}}
JSON
)

ray job submit --address="http://127.0.0.1:8265" \
   --runtime-env-json="${RUNTIME_ENV_JSON}" \
   -- python3 train.py \
   --actor-num-nodes 1 \
   --actor-num-gpus-per-node ${NUM_GPUS} \
   --colocate \
   ${MODEL_ARGS[@]} \
   ${CKPT_ARGS[@]} \
   ${ROLLOUT_ARGS[@]} \
   ${EVAL_ARGS[@]} \
   ${PERF_ARGS[@]} \
   ${GRPO_ARGS[@]} \
   ${OPTIMIZER_ARGS[@]} \
   ${SGLANG_ARGS[@]}
