#!/bin/sh
# Debian packages that pip cannot bring. `build`: to compile DeepSpeed's ops. `test`: what the tests run for real.
# Installs only what is missing, and only where it may; otherwise it says what to install, and goes on.
set -eu
case "${1:?build or test}" in
    build) packages="g++ python3-venv python3-dev" ;;
    test) packages="postgresql iproute2 util-linux prometheus prometheus-alertmanager redis-server" ;;
    *) echo "system-packages.sh: build or test, not '$1'" >&2; exit 2 ;;
esac
command -v dpkg-query >/dev/null || { echo "not a Debian system: install yourself what $packages are here" >&2; exit 0; }
missing=""
for each in $packages; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$each" 2>/dev/null || true)" = installed ] || missing="$missing $each"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "missing:$missing. As root: apt-get install$missing" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list on purpose
apt-get install -y -qq --no-install-recommends $missing >/dev/null
