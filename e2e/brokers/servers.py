"""Rescind and the example, each a child process in a scratch folder, ended by its own id."""

import base64
import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.request

from programs import Child, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = os.path.join(HERE, "../../docs/relying-parties.md")
ISSUER = "https://rescind.example"
# An open connection that is to go on is looked at after this time, one that is to be closed for this long.
GOES_ON, CLOSES = 2, 120


def ask(method, url, headers=(), body=None, ca=None):
    """The status and the JSON that was answered."""
    request = urllib.request.Request(url, body, dict(headers), method=method)
    context = ssl.create_default_context(cafile=ca) if ca else None
    try:
        with urllib.request.urlopen(request, timeout=120, context=context) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, None


def claims(token):
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def documented(name):
    """The block of the document that stands for this file."""
    with open(DOCUMENT) as file:
        return re.search(rf"```[a-z]*\n[#%] {re.escape(name)}\n(.*?)```", file.read(), re.S)[1]


class Rescind:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.child = binary, os.path.join(folder, "rescind"), None
        os.mkdir(self.folder)
        self.port, self.management = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca, certificate, key = (os.path.join(self.folder, name) for name in ("ca.crt", "tls.crt", "tls.key"))
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        ca_key = os.path.join(self.folder, "ca.key")
        subprocess.run([*made, "-subj", "/CN=authority", "-keyout", ca_key, "-out", self.ca], check=True, capture_output=True)
        # RabbitMQ does not take a certificate that is its own authority.
        subprocess.run([*made, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-CA", self.ca, "-CAkey",
                        ca_key, "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate],
                       check=True, capture_output=True)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RESCIND_")}
        self.config = os.path.join(self.folder, "rescind.toml")
        with open(self.config, "w") as file:
            file.write(
                f'[server]\nlisten = "127.0.0.1:{self.port}"\nmanagement_listen = "127.0.0.1:{self.management}"\n'
                f'data_dir = "{self.folder}/data"\n[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
                f'[tokens]\nissuer = "{ISSUER}"\n[log]\nlevel = "warn"\n')

    def start(self, **variables):
        command = [self.binary, "serve", "--config", self.config]
        self.child = Child(command, self.port, self.folder, {**self.env, **variables})

    def stop(self):
        if self.child:
            self.child.stop()

    def run(self, *arguments):
        command = [self.binary, *arguments, "--json", "--config", self.config]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return json.loads(done.stdout)

    def create_client(self, name, *scopes):
        return self.run("client", "create", "--name", name, *[word for scope in scopes for word in ("--scope", scope)])

    def login(self, client):
        body = json.dumps({"username": client["api_key"], "password": client["api_secret"]}).encode()
        status, answer = ask("POST", self.url + "/auth/login", {"Content-Type": "application/json"}, body, self.ca)
        if status != 200:
            raise RuntimeError(f"login was answered {status}")
        return answer["data"]["access_token"]

    def logout(self, token):
        status, _ = ask("POST", self.url + "/auth/logout", {"Authorization": f"Bearer {token}"}, b"", self.ca)
        if status != 200:
            raise RuntimeError(f"logout was answered {status}")


class Broker:
    """The example, which lets in and closes."""

    def __init__(self, program, folder, rescind, close, port=None):
        self.port = port or free_port()
        folder = os.path.join(folder, f"broker-{self.port}")
        os.mkdir(folder)
        verifier = rescind.run("verifier", "create", "--name", f"broker-{self.port}")
        command = [program, verifier["token"], close, f"127.0.0.1:{rescind.management}", f"127.0.0.1:{self.port}"]
        self.child = Child(command, self.port, folder)

    def stop(self):
        self.child.stop()
