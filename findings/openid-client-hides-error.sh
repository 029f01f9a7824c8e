#!/usr/bin/env bash
# openid-client 6.9.0: if the token endpoint refuses a client by 401, the error that is thrown has no `error` and no
# `error_description`. They are in the body, which is left unread, since the answer has WWW-Authenticate.
#
# Expected: `error.error` is "invalid_client", as for the same answer by 400. RFC 6749 §5.2 asks for WWW-Authenticate with
# the 401 if the client used HTTP Basic, so that every correct server is met in this way. Code that looks at `error.error`
# to tell a wrong secret from a passing fault never sees one.
#
# Output seen (status; the thrown error's name, code, `error`, and whether its body has been read):
#   400: ResponseBodyError OAUTH_RESPONSE_BODY_ERROR invalid_client read
#   401 without WWW-Authenticate: ResponseBodyError OAUTH_RESPONSE_BODY_ERROR invalid_client read
#   401: WWWAuthenticateChallengeError OAUTH_WWW_AUTHENTICATE_CHALLENGE undefined unread
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

node_packages openid-client@6.9.0
cat >client.mjs <<'JS'
import { createServer } from "node:http";
import * as oauth from "openid-client";

let answer;
const server = createServer((request, response) => {
    request.resume().on("end", () => {
        response.writeHead(answer.status, { "Content-Type": "application/json", ...answer.headers });
        response.end(JSON.stringify({ error: "invalid_client", error_description: "wrong secret" }));
    });
});
server.listen(0, "127.0.0.1", async () => {
    const issuer = `http://127.0.0.1:${server.address().port}`;
    const metadata = { issuer, token_endpoint: `${issuer}/token` };
    const client = new oauth.Configuration(metadata, "a", "b", oauth.ClientSecretBasic("b"));
    oauth.allowInsecureRequests(client);
    const ask = async (name, status, headers) => {
        answer = { status, headers };
        try {
            await oauth.clientCredentialsGrant(client, {});
        } catch (error) {
            const body = error.response?.bodyUsed === false ? "unread" : "read";
            console.log(`${name} ${error.name} ${error.code} ${error.error} ${body}`);
        }
    };
    await ask("400:", 400, {});
    await ask("401 without WWW-Authenticate:", 401, {});
    await ask("401:", 401, { "WWW-Authenticate": 'Basic realm="a"' });
    server.close();
});
JS
timeout 60 node client.mjs | tee out
cat >expected <<'TEXT'
400: ResponseBodyError OAUTH_RESPONSE_BODY_ERROR invalid_client read
401 without WWW-Authenticate: ResponseBodyError OAUTH_RESPONSE_BODY_ERROR invalid_client read
401: WWWAuthenticateChallengeError OAUTH_WWW_AUTHENTICATE_CHALLENGE undefined unread
TEXT
cmp -s out expected || changed "$(cat out)"
