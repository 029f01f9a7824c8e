#!/usr/bin/env bash
# MCP Python SDK 2.3.0, client credentials: if the authorization server's metadata has scopes_supported, the client asks for all
# of these scopes, whether it was given a scope of its own or not.
#
# Expected: scopes_supported says what there is (RFC 8414 §2), and a client asks for what it needs. A server that lists the
# scopes of all its clients thus refuses each of them (invalid_scope), though each asks for nothing by itself.
#
# Output seen (scopes_supported, the client's scope: the scope that is asked for):
#   none, none:       none
#   [], none:         none
#   [a, b], none:     a b
#   [a, b], a:        a b
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages mcp==2.3.0
cat >client.py <<'PYTHON'
import asyncio, http.server, json, sys, threading, urllib.parse, warnings

import httpx2
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

warnings.simplefilter("ignore")
supported, wanted = json.loads(sys.argv[1]), json.loads(sys.argv[2])
asked = []

class Server(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        if self.path == "/mcp":
            return self.answer(200 if self.headers["Authorization"] else 401, {})
        if self.path.startswith("/.well-known/oauth-protected-resource"):
            return self.answer(200, {"resource": f"{URL}/mcp", "authorization_servers": [URL]})
        metadata = {"issuer": URL, "authorization_endpoint": f"{URL}/a", "token_endpoint": f"{URL}/t", "response_types_supported": []}
        self.answer(200, metadata | ({} if supported is None else {"scopes_supported": supported}))

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        asked.extend(form.get("scope", ["none"]))
        self.answer(200, {"access_token": "t", "token_type": "Bearer", "expires_in": 3600})

    def log_message(self, *_):
        pass

class Storage:
    async def get_tokens(self): return None
    async def set_tokens(self, tokens): pass
    async def get_client_info(self): return None
    async def set_client_info(self, client): pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
URL = f"http://127.0.0.1:{server.server_port}"
threading.Thread(target=server.serve_forever, daemon=True).start()

async def main():
    auth = ClientCredentialsOAuthProvider(f"{URL}/mcp", Storage(), client_id="a", client_secret="b", issuer=URL, scope=wanted)
    async with httpx2.AsyncClient(auth=auth) as client:
        await client.get(f"{URL}/mcp")

asyncio.run(main())
print(*asked)
PYTHON

# asks NAME SUPPORTED WANTED EXPECTED
asks() {
    local result
    result=$(timeout 60 python3 client.py "$2" "$3" 2>errors) || { cat errors >&2; exit 2; }
    printf '%-17s %s\n' "$1" "$result"
    [ "$result" = "$4" ] || changed "$1 $result"
}

asks 'none, none:' null null none
asks '[], none:' '[]' null none
asks '[a, b], none:' '["a", "b"]' null 'a b'
asks '[a, b], a:' '["a", "b"]' '"a"' 'a b'
