#!/bin/sh
# What a container does: server | backup save|restore ... | agent OPTIONS | ray-head OPTIONS | ray-worker OPTIONS
#   | healthy server|ray | COMMAND ...
set -eu
here=$(cd "$(dirname "$0")" && pwd) # the installation's bin, also of a link in it
role=${1:-server}
[ $# -eq 0 ] || shift

ray_start() {
    # --block: the container lives as long as its Ray node does.
    exec "$here/ray" start --block --disable-usage-stats --log-style=record "$@"
}

serve_agent() {
    # The agent ends with the Ray that it is connected to, and may be up before Ray is: it is started again until it is told
    # to stop, or until another agent has taken over the cluster (exit code 3), which starting again would only fight.
    child=""
    trap 'trap - TERM INT; [ -z "$child" ] || kill -TERM "$child"; wait; exit 0' TERM INT
    while :; do
        "$here/python" -m orchestrator.cluster.agent "$@" &
        child=$!
        status=0
        wait "$child" || status=$?
        child=""
        [ "$status" -ne 3 ] || exit 3
        echo "evertrain-entrypoint: the agent ended with code $status and is started again" >&2
        sleep "${EVERTRAIN_AGENT_PAUSE_S:-2}"
    done
}

case $role in
    server) exec "$here/python" -m orchestrator.main server ;;
    agent) serve_agent "$@" ;;
    ray-head)
        # Ray takes the password of its Redis as an option only; the file keeps it out of the compose file and the environment.
        if [ -n "${EVERTRAIN_REDIS_PASSWORD_FILE:-}" ]; then
            set -- "--redis-password=$(cat "$EVERTRAIN_REDIS_PASSWORD_FILE")" "$@"
        fi
        ray_start --head "$@" ;;
    ray-worker) ray_start "$@" ;;
    backup) exec "$here/python" -m orchestrator.store.backup "$@" ;;
    healthy) exec "$here/python" "$here/healthy.py" "$@" ;;
    *) exec "$role" "$@" ;;
esac
