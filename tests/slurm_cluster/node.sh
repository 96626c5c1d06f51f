#!/usr/bin/env bash
# Process 1 of a node: gives the namespaces the node's name, addresses and memory file system, then runs slurmd.
# node.sh NAME FOLDER ADDRESS GATEWAY; runs inside unshare --uts --mount --net --ipc --pid --fork --mount-proc.
set -euo pipefail
name=$1 folder=$2 address=$3 gateway=$4
hostname "$name"
mount --bind "$folder/hosts" /etc/hosts
if [[ -e /etc/resolv.conf ]]; then mount --bind "$folder/resolv.conf" /etc/resolv.conf; fi
mount -t tmpfs -o mode=1777,size=4g tmpfs /dev/shm   # private, as on a real node, and gone with the node
if [[ -e $folder/openings ]]; then bash "${BASH_SOURCE[0]%/*}/people.sh" "$folder"; fi
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done   # the guard plugs the cable in
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
slurmd -D -N "$name" -f "$folder/slurm.conf" &
slurmd=$!
trap 'kill -TERM $slurmd' TERM
# bash stays as process 1 and reaps what slurmd leaves
while kill -0 $slurmd 2>/dev/null; do wait $slurmd || true; done
