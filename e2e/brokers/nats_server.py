"""NATS with a callout service, alone and with the example."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time

import nats
import nkeys
from programs import Child, free_port
from servers import CLOSES, GOES_ON, HERE, claims, documented


class Nats:
    def __init__(self, folder):
        self.folder, self.port = os.path.join(folder, "nats"), free_port()
        os.mkdir(self.folder)
        self.url = f"nats://127.0.0.1:{self.port}"
        program = os.path.join(sys.prefix, "bin/nats-server")
        self.version = re.search(r"\d+\.\d+\.\d+", subprocess.check_output([program, "--version"], text=True))[0]
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT)
        self.seed, issuer = seed.decode(), nkeys.from_seed(seed).public_key.decode()
        config = os.path.join(self.folder, "nats.conf")
        with open(config, "w") as file:
            file.write(f"listen: 127.0.0.1:{self.port}\n" + documented("nats.conf").replace("ISSUER", issuer))
        self.child = Child([program, "-c", config], self.port, self.folder)

    def stop(self):
        self.child.stop()


class Callout:
    """Asks at the URL `ask`, and closes on `port` what it is told to."""

    def __init__(self, nats, rescind, ask, port, credentials=""):
        config = os.path.join(nats.folder, f"callout-{port}.json")
        with open(config, "w") as file:
            json.dump({"nats": nats.url, "seed": nats.seed, "ask": ask, "credentials": credentials,
                       "ca": rescind.ca, "listen": port}, file)
        command = [sys.executable, "-B", os.path.join(HERE, "callout.py"), config]
        self.child = Child(command, port, nats.folder)

    def stop(self):
        self.child.stop()


async def join(server, token):
    """A connection that does not come back. None: it was refused."""
    ended = asyncio.Event()

    async def closed():
        ended.set()

    async def failed(_):
        pass

    try:
        connection = await nats.connect(server.url, token=token, allow_reconnect=False, closed_cb=closed,
                                        error_cb=failed, connect_timeout=120)
    except Exception:
        return None
    connection.ended = ended
    return connection


async def hears(connection):
    try:
        heard = await connection.subscribe("orders")
        await connection.publish("orders", b"1")
        return (await heard.next_msg(timeout=120)).data == b"1"
    except Exception:
        return False


async def ends(connection):
    try:
        await asyncio.wait_for(connection.ended.wait(), CLOSES)
        return True
    except asyncio.TimeoutError:
        return False


async def told_by_nobody(run, rescind, server, row):
    client = rescind.create_client("nats alone", "orders:read", "orders:write")
    token = rescind.login(client)
    opened = await join(server, token)
    run.tell("NATS and a callout: a token opens a connection with its scopes' rights", opened and await hears(opened))
    rescind.logout(token)
    await asyncio.sleep(GOES_ON)
    on = await hears(opened)
    run.tell("it goes on after the logout", on)
    run.saw(row, 0, "goes on" if on else "closed")
    again = await join(server, token)
    run.tell("the revoked token opens no other", again is None)
    run.saw(row, 1, "refused" if again is None else "let in")
    await opened.close()


async def told(run, rescind, server, alone, row):
    ours, theirs = (rescind.create_client(name, "orders:read", "orders:write") for name in ("nats ours", "nats theirs"))
    token = rescind.login(ours)
    ours_open, theirs_open = await join(server, token), await join(server, rescind.login(theirs))
    run.tell("NATS, a callout and the example: a token opens a connection", ours_open and await hears(ours_open))
    rescind.logout(token)
    closed = await ends(ours_open)
    run.tell("a logout closes it", closed)
    run.saw(row, 0, "closed" if closed else "goes on")
    run.saw(row, 3, "it is closed")
    run.saw(alone, 3, "`$SYS.REQ.SERVER.<server id>.KICK`" if closed else "?")
    again = await join(server, token)
    run.tell("the revoked token opens no other", again is None)
    run.saw(row, 1, "refused" if again is None else "let in")
    run.tell("the other client's connection goes on", await hears(theirs_open))
    back = await join(server, rescind.login(ours))
    run.tell("the client connects again with a new token", back and await hears(back))
    for connection in (theirs_open, back):
        await connection.close()


async def expires(run, server, row, token):
    opened = await join(server, token)
    run.tell(f"{row}: a token that will expire opens a connection", opened and await hears(opened))
    closed = await ends(opened) and time.time() >= claims(token)["exp"]
    run.tell("which is closed at exp", closed, opened.last_error)
    run.saw(row, 2, "closed" if closed else "?")
