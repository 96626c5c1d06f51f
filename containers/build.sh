#!/bin/sh
# Builds the image of the last commit with each kind of builder that is at hand. Of Docker's kind: an image named
# ebbtide; of apptainer's: build/ebbtide.sif. FOR=cpus: packages for CPUs. BASE: another image to begin with.
set -eu
cd "$(dirname "$0")/.."
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git archive HEAD | tar -x -C "$context"
mkdir -p build

find_one() {
    for name in "$@"; do
        command -v "$name" && return
    done
}

# docker is at hand where its daemon answers
docker=$(docker info >/dev/null 2>&1 && command -v docker || find_one podman buildah || true)
apptainer=$(find_one apptainer singularity || true)
gpu=$([ "${FOR:-gpus}" = cpus ] || echo yes)
arguments="--build-arg GPU=$gpu ${BASE:+--build-arg BASE=$BASE}"
if [ -n "$docker" ]; then
    echo "$docker builds the image ebbtide"
    # shellcheck disable=SC2086  # words
    "$docker" build ${BUILD_OPTIONS:-} $arguments -t ebbtide -f "$context/containers/Dockerfile" "$context"
fi
if [ -n "$apptainer" ]; then
    echo "$apptainer builds build/ebbtide.sif"
    # shellcheck disable=SC2086
    (cd "$context" && "$apptainer" build --force $arguments "$OLDPWD/build/ebbtide.sif" containers/ebbtide.def)
fi
[ -n "$docker$apptainer" ] || echo "nothing is built: found none of docker (running), podman, buildah, apptainer, singularity"
