#!/usr/bin/env bash
# Authlib 1.9.10 and httpx-auth 0.23.1: both renew a token before it expires, Authlib 60 s before, httpx-auth 30 s. A token that
# is valid for no longer than that counts as expired when it arrives, so that every request asks for a new one.
#
# Expected: a new token is used for some share of its time, whatever that is. Who shortens the tokens to bound what a
# revocation leaves behind gets a login for each request instead, with no error and no log line.
#
# Output seen (tokens that the endpoint issued for 5 requests in a row, by their expires_in; Authlib wants a first token to be
# asked for by itself):
#   Authlib:                 expires_in 90: 1, 60: 6, 30: 6
#   Authlib, leeway=5:       expires_in 90: 1, 60: 1, 30: 1
#   httpx-auth:              expires_in 90: 1, 60: 1, 30: 5
#   httpx-auth, 5 s early:   expires_in 90: 1, 60: 1, 30: 1
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages authlib==1.9.10 httpx-auth==0.23.1 requests
cat >client.py <<'PYTHON'
import http.server, json, threading

import httpx
from authlib.integrations.requests_client import OAuth2Session
from httpx_auth import OAuth2, OAuth2ClientCredentials

issued, expires_in = 0, 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global issued
        self.rfile.read(int(self.headers["Content-Length"]))
        issued += 1
        body = {"access_token": f"t{issued}", "token_type": "Bearer", "expires_in": expires_in}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
api = f"http://127.0.0.1:{server.server_port}"

def authlib(**options):
    session = OAuth2Session("a", "b", token_endpoint=f"{api}/token", grant_type="client_credentials", **options)
    session.fetch_token()
    return lambda: session.get(api).raise_for_status()

def httpx_auth(**options):
    OAuth2.token_cache.clear()
    client = httpx.Client(auth=OAuth2ClientCredentials(f"{api}/token", "a", "b", **options))
    return lambda: client.get(api).raise_for_status()

for name, make, options in (
    ("Authlib:", authlib, {}),
    ("Authlib, leeway=5:", authlib, {"leeway": 5}),
    ("httpx-auth:", httpx_auth, {}),
    ("httpx-auth, 5 s early:", httpx_auth, {"early_expiry": 5}),
):
    results = []
    for expires_in in (90, 60, 30):
        issued = 0
        request = make(**options)
        for _ in range(5):
            request()
        results.append(f"{expires_in}: {issued}")
    print(f"{name:24} expires_in {', '.join(results)}")
PYTHON
timeout 60 python3 -W ignore client.py 2>errors | tee out
cat >expected <<'TEXT'
Authlib:                 expires_in 90: 1, 60: 6, 30: 6
Authlib, leeway=5:       expires_in 90: 1, 60: 1, 30: 1
httpx-auth:              expires_in 90: 1, 60: 1, 30: 5
httpx-auth, 5 s early:   expires_in 90: 1, 60: 1, 30: 1
TEXT
cmp -s out expected || { cat errors >&2; changed "$(cat out)"; }
