"""What is neither: IMAP at Dovecot, and a WebSocket behind nginx."""

import imaplib
import os
import pwd
import shutil
import socket
import subprocess
import time

from programs import Child, Proxy, free_port, wait_for
from programs import Rescind as PlainRescind
from servers import CLOSES, GOES_ON, claims, documented
from tools import Program
from wire import Upstream

# Paths and ports of its own, and programs that run as others only if this one may change its user.
DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = oauthbearer
default_internal_user = {internal}
default_login_user = {login}
first_valid_uid = 0
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = oauth2
  args = {folder}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
"""
TTL = 15


class Dovecot:
    def __init__(self, folder, rescind, api):
        self.folder, self.port = os.path.join(folder, "dovecot"), free_port()
        os.makedirs(os.path.join(self.folder, "mail"))
        self.version = subprocess.check_output(["dovecot", "--version"], text=True).split()[0]
        user = pwd.getpwuid(os.geteuid())
        users = {"internal": user.pw_name, "login": user.pw_name, "uid": user.pw_uid, "gid": user.pw_gid}
        if user.pw_uid == 0:
            nobody = pwd.getpwnam("nobody")
            users = {"internal": "dovecot", "login": "dovenull", "uid": nobody.pw_uid, "gid": nobody.pw_gid}
            os.chmod(folder, 0o755)
            shutil.chown(os.path.join(self.folder, "mail"), nobody.pw_uid)
        changed = {"rescind.example:8080": f"127.0.0.1:{rescind.port}", "/etc/rescind/ca.pem": rescind.ca,
                   "API_KEY:API_SECRET": f"{api['api_key']}:{api['api_secret']}"}
        text = documented("dovecot-oauth2.conf.ext")
        for before, after in changed.items():
            text = text.replace(before, after)
        self.write("oauth2.conf", text)
        self.config = self.write("dovecot.conf", DOVECOT.format(folder=self.folder, port=self.port, **users))
        self.child = Child(["dovecot", "-F", "-c", self.config], self.port, self.folder)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def open(self, token):
        """None: it was refused."""
        name, connection = claims(token)["sub"], imaplib.IMAP4("127.0.0.1", self.port, timeout=120)
        said = f"n,a={name},\1host=127.0.0.1\1port={self.port}\1auth=Bearer {token}\1\1".encode()
        try:
            connection.authenticate("OAUTHBEARER", lambda _: said)
            return connection
        except imaplib.IMAP4.error:
            return None

    def kick(self, name):
        subprocess.run(["doveadm", "-c", self.config, "kick", name], check=True, capture_output=True, timeout=300)

    def stop(self):
        self.child.stop()


def reads(connection):
    try:
        return connection.select("INBOX")[0] == "OK"
    except (imaplib.IMAP4.error, OSError):
        return False


def closes(connection):
    """Dovecot tells the process that has the connection by a signal, after doveadm has ended."""
    try:
        wait_for("the end of the connection", lambda: not reads(connection), CLOSES)
        return True
    except RuntimeError:
        return False


def mail(run, rescind, dovecot, row):
    client = rescind.create_client("mail", "orders:read")
    token = rescind.login(client)
    opened = dovecot.open(token)
    run.tell("Dovecot: a token opens a connection", opened and reads(opened))
    rescind.logout(token)
    time.sleep(GOES_ON)
    on = reads(opened)
    run.tell("it goes on after the logout", on)
    run.saw(row, 0, "goes on" if on else "closed")
    again = dovecot.open(token)
    run.tell("the revoked token opens no other", again is None)
    run.saw(row, 1, "refused" if again is None else "let in")
    dovecot.kick(claims(token)["sub"])
    closed = closes(opened)
    run.tell("it is closed by doveadm", closed)
    run.saw(row, 3, "`doveadm kick <user>`" if closed else "?")


def expired_mail(run, dovecot, row, token):
    opened = dovecot.open(token)
    run.tell("Dovecot: a token that will expire opens a connection", opened and reads(opened))
    time.sleep(max(0, claims(token)["exp"] + 1 - time.time()))
    on = reads(opened)
    run.tell("which goes on past exp", on)
    run.saw(row, 2, "goes on" if on else "closed")


def upgrade(proxy, token):
    """A WebSocket, as far as a proxy can tell, and the status that was answered."""
    connection = socket.create_connection(("127.0.0.1", proxy.port), 20)
    connection.sendall(f"GET /socket HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    return connection, int(head.split()[1])


def echoes(connection):
    connection.sendall(b"1")
    return connection.recv(1) == b"1"


def websocket(run, binary, folder):
    program = Program("nginx", shutil.which("nginx"))
    row = f"a WebSocket behind nginx {program.version}"
    folder = os.path.join(folder, "nginx")
    os.mkdir(folder)
    rescind, upstream = PlainRescind(binary, folder, "nginx"), Upstream()
    rescind.start(RESCIND_TOKENS__ACCESS_TTL=f"{TTL}s")
    try:
        with Proxy(program, rescind, upstream, os.path.join(folder, "proxy")) as proxy:
            client = rescind.create_client("socket")
            token, other = rescind.login(client), rescind.login(rescind.create_client("other"))
            opened, _ = upgrade(proxy, token)
            expiring, _ = upgrade(proxy, other)
            run.tell(f"{row}: a token opens it", echoes(opened) and echoes(expiring))
            rescind.logout(token)
            time.sleep(GOES_ON)
            on = echoes(opened)
            run.tell("it goes on after the logout", on)
            run.saw(row, 0, "goes on" if on else "closed")
            _, status = upgrade(proxy, token)
            run.tell("the revoked token opens no other", status == 401, status)
            run.saw(row, 1, "refused" if status == 401 else "let in")
            time.sleep(max(0, claims(other)["exp"] + 1 - time.time()))
            on = echoes(expiring)
            run.tell("one goes on past exp", on)
            run.saw(row, 2, "goes on" if on else "closed")
            run.saw(row, 3, "nothing of nginx's; the API, by a [hold](#close-what-was-opened-followerhold)")
    finally:
        rescind.stop()
        upstream.stop()
