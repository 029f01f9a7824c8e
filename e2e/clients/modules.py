#!/usr/bin/env python3
"""For how long the modules before an API accept a token after a logout.

    e2e/clients/modules.py BINARY [--table]

Runs Debian's Apache httpd with mod_auth_openidc and mod_oauth2, its Squid, and the libraries that requirements.txt pins. Each
accepts a token, the token's client is logged out, and the same token is presented again with the module's clock set ahead. Each
runs with its defaults and with what the table in docs/relying-parties.md has against that. The table must be what was seen;
--table prints it. Needs openssl, apache2-bin, libapache2-mod-auth-openidc, libapache2-mod-oauth2, squid and libfaketime.
"""

import argparse
import glob
import http.server
import json
import os
import pwd
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

sys.dont_write_bytecode = True

from tools import HERE, Child, Quiet, Rescind, compare, debian_version, environment, free_port  # noqa: E402
from pinned import python  # noqa: E402
from programs import certificate  # noqa: E402

HEAD = "| module | its setting | asks as a client with | a revoked token passes |"
# Of tokens, in seconds; no module keeps an answer by itself for as long as that.
LIFETIME = 1800
# For how long modules may keep an answer.
KEPT = [2, 300, LIFETIME, 3600, 36000]
MODULES = "/usr/lib/apache2/modules"
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"

APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/httpd.pid
ErrorLog {folder}/error.log
DocumentRoot {folder}
DefaultRuntimeDir {folder}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_user_module {modules}/mod_authz_user.so
LoadModule auth_openidc_module {modules}/mod_auth_openidc.so
LoadModule oauth2_module {modules}/mod_oauth2.so
{user}
{settings}
<Location />
    Require valid-user
</Location>
"""
MOD_AUTH_OPENIDC = """
OIDCCryptoPassphrase not-used-by-resource-servers
OIDCOAuthIntrospectionEndpoint {url}/oauth2/introspect
OIDCOAuthIntrospectionEndpointAuth client_secret_basic
OIDCOAuthClientID {api_key}
OIDCOAuthClientSecret {api_secret}
OIDCOAuthSSLValidateServer Off
{setting}
<Location />
    AuthType oauth20
</Location>
"""
MOD_OAUTH2 = """
<Location />
    AuthType oauth2
    OAuth2TokenVerify introspect {url}/oauth2/introspect \
introspect.ssl_verify=false&introspect.auth=client_secret_basic&client_id={api_key}&client_secret={api_secret}{setting}
</Location>
"""
SQUID = """
http_port 127.0.0.1:{port} accel defaultsite=api.example
cache_peer 127.0.0.1 parent {upstream} 0 no-query originserver no-digest
external_acl_type verify {setting} children-max=4 children-startup=1 %>ha{{Authorization}} {python} {here}/squid_helper.py {names}
acl verified external verify
http_access allow verified
http_access deny all
cache deny all
access_log none
cache_log {folder}/cache.log
pid_filename none
coredump_dir {folder}
pinger_enable off
netdb_filename none
visible_hostname api.example
shutdown_lifetime 0 seconds
"""


class Clock:
    """The clock of a program, which can be set ahead."""

    def __init__(self, folder):
        self.file = os.path.join(folder, "time")
        self.set(0)
        self.env = {
            "LD_PRELOAD": glob.glob(FAKETIME)[0],
            "FAKETIME_TIMESTAMP_FILE": self.file,
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds):
        with open(self.file + ".new", "w") as file:
            file.write(f"+{seconds}\n")
        os.chmod(self.file + ".new", 0o644)
        os.replace(self.file + ".new", self.file)


class World:
    """A server with TLS, which mod_auth_openidc wants, and a client whose tokens are presented."""

    def __init__(self, binary, folder):
        self.folder = folder
        self.certificate, key = certificate(folder)
        # django-oauth-toolkit takes tokens whose audience is the API's own URL, and no others.
        settings = {"TLS__CERTIFICATE": self.certificate, "TLS__KEY": key, "TOKENS__AUDIENCE": "https://api.example"}
        self.rescind = Rescind(binary, folder, LIFETIME, "https", **settings)
        self.tls = ssl.create_default_context(cafile=self.certificate)
        self.app = self.rescind.client("--scope", "orders:read")
        self.asking = {None: self.rescind.client("--scope", "introspect")}

    def names(self, lifetime):
        """Who asks: a client with this `--introspect-lifetime`."""
        if lifetime not in self.asking:
            self.asking[lifetime] = self.rescind.client("--scope", "introspect", "--introspect-lifetime", lifetime)
        asking = self.asking[lifetime]
        path = os.path.join(self.folder, f"asking-{lifetime}.json")
        with open(path, "w", encoding="utf-8") as file:
            known = {"url": self.rescind.url, "certificate": self.certificate, "lifetime": LIFETIME, "kept": KEPT}
            json.dump(known | {"app": self.app, "api": asking}, file)
        os.chmod(path, 0o644)
        return path, asking

    def post(self, path, body, token=None):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(self.rescind.url + path, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request, timeout=120, context=self.tls))

    def login(self):
        body = {"username": self.app["api_key"], "password": self.app["api_secret"]}
        return self.post("/auth/login", body)["data"]["access_token"]

    def log_out(self):
        self.post("/auth/logout", {}, self.login())


def takes(port, token):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/index.html", headers={"Authorization": f"Bearer {token}"})
    try:
        return urllib.request.urlopen(request, timeout=120).status == 200
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise


def measure(world, clock, takes):
    """For how long a token passes that was accepted once and then revoked."""
    token = world.login()
    if not takes(token):
        return "not at all: the module refuses every token"
    world.log_out()
    if not takes(token):
        return "not at all"
    for seconds in KEPT:
        if seconds > 2:
            clock.set(seconds - 20)
            if not takes(token):
                raise AssertionError(f"it ends before {seconds} s, at none of the known times")
        clock.set(seconds + 2)
        if not takes(token):
            return span(seconds)
    return "for ever"


def span(seconds):
    if seconds == LIFETIME:
        return "until it expires"
    return "for 2 s at most" if seconds == 2 else f"for {seconds} s"


def user():
    return "User nobody\nGroup nogroup" if os.geteuid() == 0 else ""


def as_nobody(command):
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command] if os.geteuid() == 0 else command


def scratch(world, name):
    folder = os.path.join(world.folder, name)
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    with open(os.path.join(folder, "index.html"), "w") as file:
        file.write("orders")
    return folder


def apache(world, name, template, setting, lifetime):
    folder = scratch(world, name)
    _, asking = world.names(lifetime)
    clock, port = Clock(folder), free_port()
    settings = template.format(url=world.rescind.url, setting=setting, **asking)
    config = os.path.join(folder, "httpd.conf")
    with open(config, "w") as file:
        file.write(APACHE.format(port=port, folder=folder, modules=MODULES, user=user(), settings=settings))
    child = Child(["apache2", "-f", config, "-DFOREGROUND"], port, folder, environment() | clock.env)
    try:
        return measure(world, clock, lambda token: takes(port, token))
    finally:
        child.stop()


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"orders")

    def log_message(self, *_):
        pass


def squid(world, name, setting, lifetime):
    folder = scratch(world, name)
    names, _ = world.names(lifetime)
    clock, port, upstream = Clock(folder), free_port(), Quiet(Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    config = os.path.join(folder, "squid.conf")
    known = {"port": port, "upstream": upstream.server_port, "setting": setting, "python": "/usr/bin/python3"}
    with open(config, "w") as file:
        file.write(SQUID.format(folder=folder, here=folder, names=names, **known))
    # Squid's user need not be able to read the repository.
    with open(os.path.join(HERE, "squid_helper.py")) as source, open(os.path.join(folder, "squid_helper.py"), "w") as copy:
        copy.write(source.read())
    # The clock is for Squid's user, who could not share it with root's programs.
    given = ["env", *(f"{name}={value}" for name, value in clock.env.items())]
    child = Child(as_nobody([*given, "squid", "-N", "-f", config]), port, folder, environment())
    try:
        return measure(world, clock, lambda token: takes(port, token))
    finally:
        child.stop()
        upstream.shutdown()


def library(world, name, lifetime):
    """A library in a process of its own, which sets its clock ahead by itself."""
    names, _ = world.names(lifetime)
    env = environment() | {"REQUESTS_CA_BUNDLE": world.certificate, "SSL_CERT_FILE": world.certificate}
    command = [python(HERE), os.path.join(HERE, "resource_servers.py"), names, name]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr[-600:])
    seconds, version = json.loads(done.stdout.splitlines()[-1])
    return (span(seconds) if seconds else "not at all"), version


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    openidc, oauth2 = (debian_version(f"libapache2-mod-{name}") for name in ("auth-openidc", "oauth2"))
    # The label, what runs it, the setting as documented, the asking client's lifetime.
    of_apache = [
        (f"mod_auth_openidc {openidc}", MOD_AUTH_OPENIDC, "", None),
        (f"mod_auth_openidc {openidc}", MOD_AUTH_OPENIDC, "", "0s"),
        (f"mod_auth_openidc {openidc}", MOD_AUTH_OPENIDC, "", "2s"),
        (f"mod_auth_openidc {openidc}", MOD_AUTH_OPENIDC, "OIDCOAuthTokenIntrospectionInterval -1", None),
        (f"mod_oauth2 {oauth2}", MOD_OAUTH2, "", None),
        (f"mod_oauth2 {oauth2}", MOD_OAUTH2, "", "0s"),
        (f"mod_oauth2 {oauth2}", MOD_OAUTH2, "expiry=0", None),
    ]
    of_squid = [("", None), ("", "0s"), ("ttl=0 cache=0", None)]
    of_libraries = [
        ("django-oauth-toolkit", "", None),
        ("django-oauth-toolkit", "", "0s"),
        ("django-oauth-toolkit", "", "2s"),
        ("django-oauth-toolkit", "RESOURCE_SERVER_TOKEN_CACHING_SECONDS = 1", None),
        ("Authlib", "", None),
        ("flask-oidc", "", None),
    ]
    rows = []

    def tell(label, setting, lifetime, run):
        known = "openidc" not in label and "oauth2" not in label and "Squid" not in label
        try:
            passes = run()
            if isinstance(passes, tuple):
                passes, version = passes
                label = f"{label} {version}"
            asks = f"`--introspect-lifetime {lifetime}`" if lifetime else "no lifetime"
            line = f"| {label} | {f'`{setting}`' if setting else 'defaults'} | {asks} | {passes} |"
            rows.append({"line": line, "known": known or label in KNOWN})
        except Exception as error:
            rows.append({"label": f"{label}, {setting}, {lifetime}", "failed": repr(error)})

    with tempfile.TemporaryDirectory(prefix="rescind-modules-") as folder:
        os.chmod(folder, 0o711)
        world = World(os.path.abspath(options.binary), folder)
        try:
            for n, (label, template, setting, lifetime) in enumerate(of_apache):
                given = f"&{setting}" if template is MOD_OAUTH2 and setting else setting
                tell(label, setting, lifetime, lambda: apache(world, f"apache-{n}", template, given, lifetime))
            for n, (setting, lifetime) in enumerate(of_squid):
                label = f"Squid {debian_version('squid')}, external ACL"
                tell(label, setting, lifetime, lambda: squid(world, f"squid-{n}", setting, lifetime))
            for name, setting, lifetime in of_libraries:
                program = f"{name}, set" if setting else name
                tell(name, setting, lifetime, lambda: library(world, program, lifetime))
        finally:
            world.rescind.stop()
    if options.table:
        print("\n".join(row["line"] for row in rows if "line" in row))
    sys.exit(compare("relying-parties.md", HEAD, rows))


# Debian 12's. Another Debian has others, and its rows are only printed.
KNOWN = ["mod_auth_openidc 2.4.12.3", "mod_oauth2 3.3.1", "Squid 5.7, external ACL"]


if __name__ == "__main__":
    main()
