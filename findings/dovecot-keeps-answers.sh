#!/usr/bin/env bash
# Dovecot 2.3.19.1 (Debian 12), passdb of driver oauth2 that asks at introspection: with auth_cache_size, which is for passwords, an
# answer is kept for auth_cache_ttl (an hour) whatever its exp says. The same token opens a new connection long after
# it has expired.
#
# Expected: answers about tokens are not kept, or for no longer than until their exp.
#
# Output seen (logins of three that were let in / questions that introspection was asked; the answer to the first question is
# active with an exp of 2 s from then, to all later ones inactive; two logins at once, one after 4 s):
#   auth_cache_size = 0:   1 let in, 3 questions
#   auth_cache_size = 1M:  3 let in, 1 questions
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=1:2.3.19.1+dfsg1-2.1+deb12u7
for package in "dovecot-core=$version" "dovecot-imapd=$version" libexttextcat-2.0-0 liblua5.4-0 liblua5.3-0 libsodium23; do
    (mkdir -p debs && cd debs && apt-get download -qq "$package" 2>/dev/null)
done
for package in debs/*.deb; do dpkg -x "$package" dovecot; done
chmod -R a+rX dovecot
export LD_LIBRARY_PATH=$work/dovecot/usr/lib/dovecot:$work/dovecot/usr/lib/x86_64-linux-gnu

cat >introspection.py <<'PYTHON'
import http.server, json, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.asked += 1
        answer = {"active": False}
        if Handler.asked == 1:
            answer = {"active": True, "sub": "a", "exp": int(time.time()) + 2}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        body = str(Handler.asked).encode()
        Handler.asked = 0
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
PYTHON
introspection=$(free_port)
python3 introspection.py "$introspection" &
started+=($!)
listening "$introspection"

cat >client.py <<'PYTHON'
import imaplib, sys, time

port, let_in = int(sys.argv[1]), 0
for pause in (0, 0, 4):
    time.sleep(pause)
    connection = imaplib.IMAP4("127.0.0.1", port, timeout=30)
    try:
        connection.authenticate("OAUTHBEARER", lambda _: b"n,a=a,\1host=h\1port=1\1auth=Bearer token\1\1")
        let_in += 1
    except imaplib.IMAP4.error:
        pass
    connection.shutdown()
print(f"{let_in} let in", end="")
PYTHON

cat >oauth2.conf <<CONF
introspection_mode = post
introspection_url = http://127.0.0.1:$introspection/
username_attribute = sub
active_attribute = active
active_value = true
CONF
user=$("${as[@]}" id -un)

# try SIZE EXPECTED
try() {
    local port seen folder=$work/size-$1
    port=$(free_port)
    mkdir "$folder"
    [ ${#as[@]} -eq 0 ] || chown nobody:nogroup "$folder"
    cat >"$folder/dovecot.conf" <<CONF
base_dir = $folder/run
state_dir = $folder/state
libexec_dir = $work/dovecot/usr/lib/dovecot
login_plugin_dir = $work/dovecot/usr/lib/dovecot/modules/login
mail_plugin_dir = $work/dovecot/usr/lib/dovecot/modules
log_path = $folder/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = oauthbearer
auth_cache_size = $1
auth_failure_delay = 0
default_internal_user = $user
default_internal_group = $("${as[@]}" id -gn)
default_login_user = $user
first_valid_uid = 0
mail_location = maildir:$folder/mail
passdb {
  driver = oauth2
  args = $work/oauth2.conf
}
userdb {
  driver = static
  args = uid=$("${as[@]}" id -u) gid=$("${as[@]}" id -g) home=$folder/home
}
service imap-login {
  chroot =
  inet_listener imap {
    port = $port
  }
  inet_listener imaps {
    port = 0
  }
}
service anvil {
  chroot =
}
CONF
    # dovecot itself would look for doveconf where it is installed.
    "${as[@]}" dovecot/usr/bin/doveconf -f service=master -c "$folder/dovecot.conf" -m master -p \
        -e dovecot/usr/sbin/dovecot -F -c "$folder/dovecot.conf" >"$folder/output" 2>&1 &
    started+=($!)
    listening "$port"
    seen=$(timeout 60 python3 client.py "$port") || { cat "$folder/log" "$folder/output" >&2; exit 2; }
    seen="$seen, $(curl -sf "http://127.0.0.1:$introspection/") questions"
    printf '%-22s %s\n' "auth_cache_size = $1:" "$seen"
    [ "$seen" = "$2" ] || { cat "$folder/log" "$folder/output" >&2; changed "auth_cache_size = $1: $seen"; }
}
try 0 '1 let in, 3 questions'
try 1M '3 let in, 1 questions'
