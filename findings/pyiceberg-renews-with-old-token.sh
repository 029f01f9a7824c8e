#!/usr/bin/env bash
# PyIceberg 0.12.0, REST catalogue with `credential`: after a 401 it asks for a new token, and sends the refused token to the
# token endpoint as Authorization: Bearer, beside client_id and client_secret in the body. RFC 6749 §2.3 forbids more than one
# way of authentication in a request; if the server refuses it, the catalogue has no valid token until it is made anew.
#
# Expected: the renewal is the same request as the first one, which has no Authorization. The first one shows that the
# server accepts the client, so that nothing tells of the difference before the first token is revoked or expires.
#
# Output seen (the endpoint answers 401 invalid_client to a request with both; then it ignores the header):
#   first:           ok, token endpoint received: no header
#   token refused:   OAuthError, token endpoint received: Bearer t2
#   once more:       OAuthError, token endpoint received: Bearer t2
#   header ignored:  ok, token endpoint received: Bearer t2
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages pyiceberg==0.12.0
cat >client.py <<'PYTHON'
import http.server, json, threading

from pyiceberg.catalog.rest import RestCatalog

asked, refused, tokens, strict = [], None, 0, True

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        global tokens
        assert b"client_secret=secret" in self.rfile.read(int(self.headers["Content-Length"]))
        header = self.headers["Authorization"]
        asked.append(header or "no header")
        if header and strict:
            return self.answer(401, {"error": "invalid_client"})
        tokens += 1
        self.answer(200, {"access_token": f"t{tokens}", "token_type": "bearer", "expires_in": 3600})

    def do_GET(self):
        if self.headers["Authorization"] in (None, refused):
            return self.answer(401, {"error": {"message": "no", "type": "NotAuthorizedException", "code": 401}})
        config = {"defaults": {}, "overrides": {}}
        self.answer(200, config if self.path.endswith("/config") else {"namespaces": [["a"]]})

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
uri = f"http://127.0.0.1:{server.server_port}"
catalogue = RestCatalog("a", uri=uri, credential="id:secret", **{"oauth2-server-uri": f"{uri}/token"})

def list_namespaces(name):
    try:
        catalogue.list_namespaces()
        outcome = "ok"
    except Exception as error:
        outcome = type(error).__name__
    print(f"{name:16} {outcome}, token endpoint received: {' '.join(dict.fromkeys(asked))}")
    asked.clear()

list_namespaces("first:")
refused = f"Bearer t{tokens}"
list_namespaces("token refused:")
list_namespaces("once more:")
strict = False
list_namespaces("header ignored:")
PYTHON
timeout 60 python3 -W ignore client.py 2>errors | tee out
cat >expected <<'TEXT'
first:           ok, token endpoint received: no header
token refused:   OAuthError, token endpoint received: Bearer t2
once more:       OAuthError, token endpoint received: Bearer t2
header ignored:  ok, token endpoint received: Bearer t2
TEXT
cmp -s out expected || { cat errors >&2; changed "$(cat out)"; }
