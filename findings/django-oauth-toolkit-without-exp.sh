#!/usr/bin/env bash
# django-oauth-toolkit 3.4.1 (Django 5.2.19) as a resource server that asks introspection: an answer without `exp` is kept for 36000
# seconds, ten hours. An answer whose `exp` is nearer is kept until then.
#
# Expected: an answer that does not say how long it holds is kept for no longer than one that does, or not at all, as
# mod_auth_openidc does. A server that leaves `exp` out, so that nothing is kept, has the contrary here.
#
# Output seen (exp of the answer: the seconds for which it is kept):
#   in 3600 s: 3600
#   in 2 s:    2
#   none:      36000
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages django-oauth-toolkit==3.4.1 Django==5.2.19
cat >api.py <<'PYTHON'
import http.server, json, sys, threading, time

lasts = json.loads(sys.argv[1])

class Introspection(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        exp = {} if lasts is None else {"exp": int(time.time()) + lasts}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"active": True, "scope": "read", **exp}).encode())

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
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    LOGGING_CONFIG=None,
    OAUTH2_PROVIDER={
        "RESOURCE_SERVER_INTROSPECTION_URL": f"http://127.0.0.1:{server.server_port}/",
        "RESOURCE_SERVER_INTROSPECTION_CREDENTIALS": ("a", "b"),
    },
)
django.setup()

from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from oauth2_provider.decorators import protected_resource
from oauth2_provider.models import AccessToken

urlpatterns = [path("", protected_resource(scopes=["read"])(lambda request: HttpResponse("hello")))]
call_command("migrate", verbosity=0)
now = time.time()
assert Client().get("/", headers={"Authorization": "Bearer t"}).status_code == 200
kept = AccessToken.objects.get().expires.timestamp() - int(now)
# The second may have ended meanwhile.
print(next(known for known in (2, 3600, 36000) if 0 <= kept - known <= 2))
PYTHON

# kept NAME SECONDS EXPECTED
kept() {
    local result
    result=$(timeout 60 python3 -W ignore api.py "$2" 2>errors) || { cat errors >&2; exit 2; }
    printf '%-10s %s\n' "$1" "$result"
    [ "$result" = "$3" ] || changed "$1 $result"
}

kept 'in 3600 s:' 3600 3600
kept 'in 2 s:' 2 2
kept 'none:' null 36000
