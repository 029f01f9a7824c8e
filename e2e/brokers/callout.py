"""NATS' auth callout for Rescind's tokens: callout.py CONFIG

Asks about each token, and makes a user JWT of the answer, with the same end. `ask` in the configuration is Rescind's
introspection, or the example broker's /open, which sends a DELETE of /<server id>/<cid> when the token is revoked.
"""

import asyncio
import base64
import json
import ssl
import sys
import time
import urllib.parse
import urllib.request

import nats
import nkeys


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(key, claims):
    claims = {"iss": key.public_key.decode(), "iat": int(time.time()), **claims}
    parts = [encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)]
    return b".".join([*parts, encode(key.sign(b".".join(parts)))])


def ask(config, **form):
    request = urllib.request.Request(config["ask"], urllib.parse.urlencode(form).encode())
    request.add_header("Authorization", "Basic " + base64.b64encode(config["credentials"].encode()).decode())
    with urllib.request.urlopen(request, timeout=120, context=ssl.create_default_context(cafile=config["ca"])) as answer:
        return json.load(answer)


def user(about, subject):
    """Scopes are `<subject>:read` and `<subject>:write`."""
    scopes = [scope.rsplit(":", 1) for scope in about["scope"].split()]
    allowed = {kind: {"allow": [name for name, verb in scopes if verb == wanted]}
               for kind, wanted in (("pub", "write"), ("sub", "read"))}
    return {
        "sub": subject, "name": about["sub"], "aud": "APP", "exp": about["exp"],
        "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, **allowed},
    }


async def main(config):
    key = nkeys.from_seed(config["seed"].encode())
    callout = await nats.connect(config["nats"], user="callout", password="callout")
    system = await nats.connect(config["nats"], user="system", password="system")

    async def authorize(message):
        asked = json.loads(base64.urlsafe_b64decode(message.data.split(b".")[1] + b"=="))["nats"]
        server, client = asked["server_id"]["id"], asked["client_info"]
        form = {"token": asked["connect_opts"].get("auth_token", ""), "client_ip": client["host"]}
        about = await asyncio.to_thread(ask, config, connection=f"{server}/{client['id']}", **form)
        answer = {"type": "authorization_response", "version": 2}
        if about["active"]:
            answer["jwt"] = signed(key, user(about, asked["user_nkey"])).decode()
        else:
            answer["error"] = "the token is not valid"
        await message.respond(signed(key, {"sub": asked["user_nkey"], "aud": server, "nats": answer}))

    async def close(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        server, cid = head.split()[1].decode().strip("/").split("/")
        await system.request(f"$SYS.REQ.SERVER.{server}.KICK", json.dumps({"cid": int(cid)}).encode(), timeout=120)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    await callout.subscribe("$SYS.REQ.USER.AUTH", cb=authorize)
    await callout.flush()
    async with await asyncio.start_server(close, "127.0.0.1", config["listen"]) as server:
        await server.serve_forever()


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        asyncio.run(main(json.load(file)))
