#!/bin/sh
# Install one target of deploy/Dockerfile into a virtual environment: install.sh server|ray-cpu|ray-cuda PREFIX
# The image's build runs this. What pip has fetched stays in its cache: the Dockerfile mounts one for the time of the build.
# PYTHON is the interpreter, PIP the pip to install with; they default to python3 and its own.
# EVERTRAIN_EXTRAS replaces what the target installs beside the base: `postgres,monitors` lets the server watch models at work,
# `s3` lets it write what retrainings learn from into a bucket.
set -eu
target=${1:?server, ray-cpu or ray-cuda}
prefix=${2:?where to install}
python=${PYTHON:-python3}
tree=$(cd "$(dirname "$0")/../.." && pwd)
index=""
case $target in
    server) extras=postgres ;;
    ray-cpu)
        extras=cluster,explain,hf,rl,s3
        index=${TORCH_CPU_INDEX:---extra-index-url=https://download.pytorch.org/whl/cpu} ;;
    ray-cuda) extras=cluster,explain,hf,rl,s3 ;; # PyPI's own torch brings CUDA's libraries
    *) echo "install.sh: server, ray-cpu or ray-cuda, not '$target'" >&2; exit 2 ;;
esac
# Without pip of its own: nothing in the image installs anything later.
"$python" -m venv --without-pip "$prefix"
# shellcheck disable=SC2086 # several words, and no word at all where there is no index
${PIP:-$python -m pip} --python "$prefix/bin/python" install --quiet --disable-pip-version-check \
    $index --constraint "$tree/constraints.txt" "$tree[${EVERTRAIN_EXTRAS:-$extras}]"
install -m 0755 "$tree/deploy/image/entrypoint.sh" "$prefix/bin/evertrain-entrypoint"
install -m 0644 "$tree/deploy/image/healthy.py" "$prefix/bin/healthy.py"
if [ "$target" != server ]; then
    # Here and not in a run: the image has no compiler, and its file system is read-only then.
    TORCH_EXTENSIONS_DIR="$prefix/torch_extensions" "$prefix/bin/python" -m trainers.build_ops
fi
