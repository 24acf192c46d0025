#!/usr/bin/env bash
# Two gunicorn servers of one user share one control socket, and its owner changes at every fork.
#
# Version:  gunicorn 27.0.1, with no options but the address.
# Expected: gunicornc controls the server that it is run for. Gunicorn's documentation (setting
#           control_socket, since 25.1.0) says that the socket "allows runtime management of
#           Gunicorn". A second server should leave the socket of a running one alone and report
#           that it has none, as it does for an address that is in use.
# Seen:     the default path is the same for all servers of a user (XDG_RUNTIME_DIR/gunicorn.ctl or
#           ~/.gunicorn/gunicorn.ctl). Every server unlinks what is there and binds the path anew
#           when it starts, and again after every fork (gunicorn/ctl/server.py).
#           - The second server takes the path; gunicornc controls it, without a message.
#           - If the first one replaces its workers, gunicornc controls the first one again. So a
#             command such as "shutdown" reaches the server whose worker was replaced last.
#           - If the first one ends, it removes the path of the second one.
set -euo pipefail
work=$(mktemp -d)
stop() {
    kill $(cat "$work"/*.pid 2>/dev/null) 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap stop EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gunicorn==27.0.1 2>/dev/null
cat >app.py <<'PY'
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
PY
mkdir home
export HOME=$work/home
unset XDG_RUNTIME_DIR

start() { # start NAME: a server that listens on a socket of that name, for two minutes at most
    timeout 120 venv/bin/gunicorn --bind "unix:$1" --pid "$1.pid" app:app >"$1.log" 2>&1 &
}
reached() { # the address of the server that gunicornc controls
    timeout 10 venv/bin/gunicornc -j -c "show listeners" 2>&1 |
        sed -nE 's/.*"address": "unix:([a-z]+)".*/the \1/p' | grep . || echo "no server"
}
expect() { # expect SERVER WHEN: wait for it, up to 10 seconds
    local seen
    for _ in $(seq 20); do
        seen=$(reached)
        if [ "$seen" = "$1" ]; then
            echo "$2: gunicornc reaches $seen"
            return
        fi
        sleep 0.5
    done
    echo "$2: gunicornc reaches $seen, no longer $1" >&2
    exit 1
}

venv/bin/gunicorn --version
start first
expect "the first" "the first server runs"
start second
expect "the second" "the second server runs too"
kill -HUP "$(cat first.pid)"
expect "the first" "the first one has replaced its worker"
kill -TERM "$(cat first.pid)"
expect "no server" "the first one has ended"
kill -0 "$(cat second.pid)"
echo "the second one still runs"
echo "as described"
