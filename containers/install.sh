#!/bin/sh
# What an image has, on Ubuntu or Debian. Called while it is built, by Dockerfile and ebbtide.def.
# GPU=yes: packages for GPUs; empty: for CPUs.
set -eu
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1
apt-get update
# a compiler for kernels that are compiled on the node; libraries of NUMA and InfiniBand, which torch and SGLang load
apt-get install --yes --no-install-recommends \
    ca-certificates g++ gcc git libibverbs1 ibverbs-providers libnuma1 make python3 python3-dev python3-venv
rm -rf /var/lib/apt/lists/*
make install VENV=/opt/venv GPU="${GPU:-}"
/opt/venv/bin/ebbtide --help >/dev/null
