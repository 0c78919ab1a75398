#!/bin/sh
# Builds an image with whichever of docker, podman and buildah works here; the tag is the project's
# version.
#
#   sh mpi-operator/image.sh                    IMAGE:0.1.0
#   sh mpi-operator/image.sh gpu --build-arg BUILD_BASE=...    IMAGE:0.1.0-gpu, see Dockerfile
#   sh mpi-operator/image.sh tensorboard        IMAGE-tensorboard:0.1.0
#
# IMAGE (default: ringsage) is the repository, such as registry.example/me/ringsage. What else stands on
# the command line goes to the builder. pip's PIP_INDEX_URL and PIP_EXTRA_INDEX_URL are passed on.
set -eu

fail() { echo "error: $1" >&2; exit 2; }

cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
name=${IMAGE:-ringsage}
case ${1:-} in
    gpu) shift
        case "$*" in
            *BUILD_BASE=*) ;;
            *) fail "gpu: expected --build-arg BUILD_BASE=IMAGE, a Debian bookworm with CUDA's toolkit and NCCL (libnccl-dev): add it" ;;
        esac
        tag=$name:$version-gpu
        set -- --build-arg HOROVOD_GPU_OPERATIONS=NCCL "$@" ;;
    tensorboard) shift
        tag=$name-tensorboard:$version
        set -- --target tensorboard "$@" ;;
    ''|-*) tag=$name:$version ;;
    *) fail "expected gpu, tensorboard or flags of the builder, got $1" ;;
esac
for variable in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do
    eval "value=\${$variable:-}"
    if [ -n "$value" ]; then set -- --build-arg "$variable=$value" "$@"; fi
done
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
if [ "$revision" != unknown ] && [ -n "$(git status --porcelain 2>/dev/null)" ]; then
    revision=$revision-dirty
fi
set -- --file mpi-operator/Dockerfile --tag "$tag" --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" "$@" .

# A name without a registry is one of docker.io, for docker as for a pod; podman and buildah would make it
# one of `localhost`, where a pod finds none.
case ${tag%%/*} in
    "$tag") whole=docker.io/library/$tag ;;
    *.*|*:*|localhost) whole=$tag ;;
    *) whole=docker.io/$tag ;;
esac

# The client of docker may be there without its daemon.
if docker version >/dev/null 2>&1; then DOCKER_BUILDKIT=1 docker build "$@"
elif podman version >/dev/null 2>&1; then podman build --format docker --tag "$whole" "$@"
elif buildah version >/dev/null 2>&1; then buildah build --format docker --tag "$whole" "$@"
else fail "expected docker (with its daemon), podman or buildah, found none that works: install or start one"
fi
echo "$tag"
