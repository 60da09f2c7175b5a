#!/bin/sh
# Make the secrets that compose.yaml reads from files, once: secrets.sh [DIRECTORY], by default deploy/secrets.
# The directory is closed to others on the host; the files in it are readable, because each container reads its own as a user
# that the host does not know. What exists already stays as it is: remove a file to have it made anew.
set -eu
directory=${1:-$(dirname "$0")/secrets}
mkdir -p "$directory"
chmod 0700 "$directory"
cd "$directory"
random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
make() { # NAME TEXT
    [ -s "$1" ] && return
    printf '%s\n' "$2" >"$1"
    chmod 0444 "$1"
}
for role in admin agent user viewer; do make "$role.token" "evt_$(random)"; done
make ray-token "$(random)"
make redis-password "$(random)"
make grafana-password "$(random)"
make postgres-password "$(random)"
make store-url "postgresql://evertrain:$(cat postgres-password)@postgres/evertrain"
make s3-user evertrain
make s3-password "$(random)"
make aws-credentials "[default]
aws_access_key_id = $(cat s3-user)
aws_secret_access_key = $(cat s3-password)"
echo "$(pwd): $(ls | wc -l) secrets"
