"""Squid's helper: asks introspection about the token of each line, as the client of a file."""

import base64
import json
import ssl
import sys
import urllib.parse
import urllib.request

with open(sys.argv[1], encoding="utf-8") as file:
    names = json.load(file)
tls = ssl.create_default_context(cafile=names["certificate"])
credentials = f"{names['api']['api_key']}:{names['api']['api_secret']}".encode()
headers = {"Authorization": "Basic " + base64.b64encode(credentials).decode()}

for line in sys.stdin:
    token = urllib.parse.unquote(line.split()[0]).split(" ")[-1]
    form = urllib.parse.urlencode({"token": token}).encode()
    request = urllib.request.Request(f"{names['url']}/oauth2/introspect", form, headers)
    try:
        active = json.load(urllib.request.urlopen(request, timeout=120, context=tls))["active"]
    except Exception as error:
        print(error, file=sys.stderr)
        active = False
    print("OK" if active else "ERR", flush=True)
