#!/usr/bin/env bash
# django-oauth-toolkit 3.4.1 (Django 5.2.19) as a resource server that asks introspection. It keeps each answer in its database.
# RESOURCE_SERVER_TOKEN_CACHING_SECONDS = 0 does not switch this off: it refuses every token. A lower value does not hold for
# answers that are there already, a restart included. And `protected_resource` refuses a token by 403, not by 401.
#
# Expected: 0 asks each time; a setting holds from the restart on; and an expired token is a 401 (RFC 6750 §3.1), at which
# clients ask for a new one. Clients that renew on 401 do not renew here.
#
# Output seen (statuses of requests with a token that is revoked after the first one, and questions that introspection was
# asked; each line is a process of its own, and the second uses the first one's database):
#   default (36000):       200 200 200, 1 question
#   1, same database:      200 200 200, 0 questions
#   1, two seconds apart:  200 403 403, 3 questions
#   0, valid for ever:     403 403 403, 3 questions
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages django-oauth-toolkit==3.4.1 Django==5.2.19
cat >api.py <<'PYTHON'
import http.server, json, sys, threading, time
from pathlib import Path

database, seconds, pause, revoke = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "revoke"
asked, active = 0, True

class Introspection(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global asked
        self.rfile.read(int(self.headers["Content-Length"]))
        asked += 1
        body = json.dumps({"active": True, "scope": "read", "exp": int(time.time()) + 3600} if active else {"active": False})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Introspection)
threading.Thread(target=server.serve_forever, daemon=True).start()

import django
from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="a",
    USE_TZ=True,
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    LOGGING_CONFIG=None,
    OAUTH2_PROVIDER={
        "RESOURCE_SERVER_INTROSPECTION_URL": f"http://127.0.0.1:{server.server_port}/",
        "RESOURCE_SERVER_INTROSPECTION_CREDENTIALS": ("a", "b"),
        **({"RESOURCE_SERVER_TOKEN_CACHING_SECONDS": int(seconds)} if seconds != "default" else {}),
    },
)
django.setup()

from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from oauth2_provider.decorators import protected_resource

urlpatterns = [path("", protected_resource(scopes=["read"])(lambda request: HttpResponse("hello")))]
if not Path(database).exists():
    call_command("migrate", verbosity=0)
statuses = []
for _ in range(3):
    statuses.append(str(Client().get("/", headers={"Authorization": "Bearer t"}).status_code))
    active = not revoke
    time.sleep(pause)
print(f"{' '.join(statuses)}, {asked} question{'' if asked == 1 else 's'}")
PYTHON

# requests NAME EXPECTED DATABASE SECONDS PAUSE WHAT
requests() {
    local result
    result=$(timeout 60 python3 -W ignore api.py "${@:3}" 2>errors) || { cat errors >&2; exit 2; }
    printf '%-22s %s\n' "$1" "$result"
    [ "$result" = "$2" ] || changed "$1 $result"
}

requests 'default (36000):' '200 200 200, 1 question' a default 0 revoke
requests '1, same database:' '200 200 200, 0 questions' a 1 2 revoke
requests '1, two seconds apart:' '200 403 403, 3 questions' b 1 2 revoke
requests '0, valid for ever:' '403 403 403, 3 questions' c 0 0 keep
