#!/usr/bin/env bash
# mod_oauth2 3.3.1 with liboauth2 1.4.5.4 (Debian 12): an answer of token introspection is kept for 300 s whatever the answer's
# own exp says, and introspect.expiry, which reads as if it were the setting for that, has no effect. The option is expiry.
#
# Expected: an answer is not used past its exp, and introspect.expiry=0 switches the keeping off.
#
# Output seen (requests that were let in / questions that introspection was asked; the answer to the first question is
# active with an exp of 2 s from then, to all later ones inactive; three requests at once, one after 4 s):
#   default:             4 let in, 1 question
#   introspect.expiry=0: 4 let in, 1 question
#   expiry=0:            1 let in, 4 questions
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for package in libapache2-mod-oauth2=3.3.1-1 liboauth2-apache0 liboauth2-0 libcjose0 libhiredis0.14 libmemcached11 libhashkit2 \
    apache2-bin libapr1 libaprutil1 libjansson4 libcurl4 liblua5.3-0; do
    (mkdir -p debs && cd debs && apt-get download -qq "$package" 2>/dev/null)
done
for package in debs/*.deb; do dpkg -x "$package" apache; done
dpkg-deb -f debs/liboauth2-0_*.deb Version | grep -q '^1\.4\.5' || changed "liboauth2 $(dpkg-deb -f debs/liboauth2-0_*.deb Version)"
chmod -R a+rX apache
modules=$work/apache/usr/lib/apache2/modules

cat >introspection.py <<'PYTHON'
import http.server, json, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.asked += 1
        with open("asked", "w") as file:
            file.write(str(Handler.asked))
        answer = {"active": False}
        if Handler.asked == 1:
            answer = {"active": True, "sub": "a", "exp": int(time.time()) + 2}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
PYTHON

# kept OPTION: how often four requests are let in, and how often introspection is asked.
kept() {
    local port introspection apache question i let_in=0
    port=$(free_port)
    introspection=$(free_port)
    rm -f asked
    python3 introspection.py "$introspection" &
    question=$!
    started+=("$question")
    mkdir -p www && echo hello >www/index.html
    cat >httpd.conf <<CONF
ServerRoot $work
ServerName localhost
Listen 127.0.0.1:$port
PidFile $work/httpd.pid
ErrorLog $work/error.log
DocumentRoot $work/www
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authn_core_module $modules/mod_authn_core.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule oauth2_module $modules/mod_oauth2.so
$([ ${#as[@]} -eq 0 ] || printf 'User nobody\nGroup nogroup\n')
<Location />
    AuthType oauth2
    Require oauth2_claim sub:a
    OAuth2TokenVerify introspect http://127.0.0.1:$introspection/ introspect.auth=none$1
</Location>
CONF
    LD_LIBRARY_PATH=$work/apache/usr/lib/x86_64-linux-gnu apache/usr/sbin/apache2 -X -f "$work/httpd.conf" &
    apache=$!
    started+=("$apache")
    for i in "$port" "$introspection"; do
        until curl -s -o /dev/null "http://127.0.0.1:$i/"; do sleep 0.1; done
    done
    for i in 1 2 3 4; do
        [ "$i" -lt 4 ] || sleep 4
        [ "$(curl -s -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer t' "http://127.0.0.1:$port/index.html")" != 200 ] ||
            let_in=$((let_in + 1))
    done
    kill "$apache" "$question"
    wait "$apache" "$question" 2>/dev/null || true
    started=()
    result="$let_in let in, $(cat asked) question$([ "$(cat asked)" = 1 ] || echo s)"
}

kept ''
default=$result
kept '&introspect.expiry=0'
documented=$result
kept '&expiry=0'
effective=$result
printf '%-20s %s\n' default: "$default" introspect.expiry=0: "$documented" expiry=0: "$effective"
[ "$default" = '4 let in, 1 question' ] || { cat error.log >&2; changed "by default: $default"; }
[ "$documented" = '4 let in, 1 question' ] || changed "introspect.expiry=0: $documented"
[ "$effective" = '1 let in, 4 questions' ] || changed "expiry=0: $effective"
