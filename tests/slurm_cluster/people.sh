#!/usr/bin/env bash
# In a mount namespace of its own: people.sh FOLDER [COMMAND...]. The cluster's users are known from now on, and each
# closed folder of FOLDER/openings (closed, then what is shown of it, with tabs between) is an open one with only that.
set -euo pipefail
umask 022
folder=$1 held=$1/held
mount --bind "$folder/passwd" /etc/passwd
mount --bind "$folder/group" /etc/group
while IFS=$'\t' read -r -a paths; do
  mount -t tmpfs -o mode=700 tmpfs "$held"
  for k in "${!paths[@]}"; do   # held first: the way to it may lead through what is closed
    if [[ -d ${paths[k]} ]]; then mkdir "$held/$k"; else touch "$held/$k"; fi
    mount --bind "${paths[k]}" "$held/$k"
  done
  mount -t tmpfs -o mode=755 tmpfs "${paths[0]}"
  for ((k = 1; k < ${#paths[@]}; k++)); do
    if [[ -d $held/$k ]]; then mkdir -p "${paths[k]}"; else mkdir -p "${paths[k]%/*}"; touch "${paths[k]}"; fi
    mount --bind "$held/$k" "${paths[k]}"
  done
  umount --recursive "$held"
done <"$folder/openings"
if (($# > 1)); then exec "${@:2}"; fi
