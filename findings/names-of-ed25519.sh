#!/usr/bin/env bash
# joserfc 1.8.0, Authlib 1.9.9 and PyJWT 2.15.1: a correct RFC 9068 token, signed with Ed25519 by either of its names (RFC 8037:
# EdDSA, RFC 9864: Ed25519) or with ES256, and a key set whose one key says which.
#
# Expected: a library that knows the curve verifies the token, as the key set names the key's algorithm.
#
# joserfc takes, without a list of algorithms, only those that it recommends, and neither name is among them. Authlib's
# validator for RFC 9068 gives it no list and has no option for one, so it refuses every such token as invalid_token. PyJWT
# does not know the newer name, and leaves the key out of the set.
#
# Output seen:
#   joserfc:                  EdDSA refused, Ed25519 refused, ES256 taken
#   joserfc, with a list:     EdDSA taken, Ed25519 taken, ES256 taken
#   Authlib, RFC 9068:        EdDSA refused, Ed25519 refused, ES256 taken
#   PyJWT, with a list:       EdDSA taken, Ed25519 refused, ES256 taken
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages authlib==1.9.9 joserfc==1.8.0 'pyjwt[crypto]==2.15.1' requests
cat >client.py <<'PYTHON'
import time

import jwt as pyjwt
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey

NAMES = ["EdDSA", "Ed25519", "ES256"]
ISSUER, API, now = "https://id.example", "https://api.example", int(time.time())
CLAIMS = {"iss": ISSUER, "aud": API, "sub": "1", "client_id": "c", "jti": "1", "iat": now, "exp": now + 60}

def issued(name):
    make, curve = (ECKey, "P-256") if name == "ES256" else (OKPKey, "Ed25519")
    key = make.generate_key(curve, {"alg": name, "use": "sig", "kid": "k"}, private=True)
    header = {"alg": name, "typ": "at+jwt", "kid": "k"}
    return jwt.encode(header, CLAIMS, key, algorithms=[name]), {"keys": [key.as_dict(private=False)]}

def authlib(token, keys):
    class Validator(JWTBearerTokenValidator):
        def get_jwks(self):
            return keys

    validator = Validator(ISSUER, API)
    validator.validate_token(validator.authenticate_token(token), None, None)

def with_pyjwt(token, keys):
    key = pyjwt.PyJWKSet.from_dict(keys)["k"]
    pyjwt.decode(token, key, algorithms=NAMES, audience=API, issuer=ISSUER)

for what, verify in (
    ("joserfc:", lambda token, keys: jwt.decode(token, KeySet.import_key_set(keys))),
    ("joserfc, with a list:", lambda token, keys: jwt.decode(token, KeySet.import_key_set(keys), algorithms=NAMES)),
    ("Authlib, RFC 9068:", authlib),
    ("PyJWT, with a list:", with_pyjwt),
):
    results = []
    for name in NAMES:
        try:
            verify(*issued(name))
            results.append(f"{name} taken")
        except Exception as error:
            results.append(f"{name} refused")
            print(what, name, repr(error), file=__import__("sys").stderr)
    print(f"{what:25} {', '.join(results)}")
PYTHON
timeout 60 python3 -W ignore client.py 2>errors | tee out
cat >expected <<'TEXT'
joserfc:                  EdDSA refused, Ed25519 refused, ES256 taken
joserfc, with a list:     EdDSA taken, Ed25519 taken, ES256 taken
Authlib, RFC 9068:        EdDSA refused, Ed25519 refused, ES256 taken
PyJWT, with a list:       EdDSA taken, Ed25519 refused, ES256 taken
TEXT
cmp -s out expected || { cat errors >&2; changed "$(cat out)"; }
