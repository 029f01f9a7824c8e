#!/usr/bin/env bash
# simple-oauth2 5.1.0: revoke() rejects the answer that RFC 7009 §2.2 asks for, a 200 whose body the client ignores, unless it
# is labelled as JSON. The token is revoked, and the caller is told that this failed, with "406".
#
# Expected: an empty 200 of the revocation endpoint resolves. A caller that retries or reports a failed logout does so each
# time. The option http.json = true ends it, though it reads as if it were about the request.
#
# Output seen:
#   default:                 rejected (406): The content-type is not JSON compatible; 1 token revoked
#   empty, application/json: resolved; 1 token revoked
#   http.json = true:        resolved; 1 token revoked
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

node_packages simple-oauth2@5.1.0
cat >client.js <<'JS'
const { createServer } = require("node:http");
const { ClientCredentials } = require("simple-oauth2");

let revoked;
let label;
const server = createServer((request, response) => {
    request.resume().on("end", () => {
        if (request.url === "/revoke") {
            revoked += 1;
            response.writeHead(200, { "Content-Length": 0, ...label }).end();
            return;
        }
        response.setHeader("Content-Type", "application/json");
        response.end(JSON.stringify({ access_token: "t", token_type: "Bearer", expires_in: 60 }));
    });
});
server.listen(0, "127.0.0.1", async () => {
    const auth = { tokenHost: `http://127.0.0.1:${server.address().port}`, tokenPath: "/token", revokePath: "/revoke" };
    const revoke = async (name, http, contentType) => {
        revoked = 0;
        label = contentType ? { "Content-Type": contentType } : {};
        const client = new ClientCredentials({ client: { id: "a", secret: "b" }, auth, http });
        const token = await client.getToken({});
        const outcome = await token.revoke("access_token").then(
            () => "resolved",
            (error) => `rejected (${error.output?.statusCode}): ${error.message}`,
        );
        console.log(`${name.padEnd(24)} ${outcome}; ${revoked} token revoked`);
    };
    await revoke("default:");
    await revoke("empty, application/json:", undefined, "application/json");
    await revoke("http.json = true:", { json: true });
    server.close();
});
JS
timeout 60 node client.js | tee out
cat >expected <<'TEXT'
default:                 rejected (406): The content-type is not JSON compatible; 1 token revoked
empty, application/json: resolved; 1 token revoked
http.json = true:        resolved; 1 token revoked
TEXT
cmp -s out expected || changed "$(cat out)"
