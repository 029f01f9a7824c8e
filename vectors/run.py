#!/usr/bin/env python3
"""Runs tokens.json against a verifier of its own, written from README.md alone.

Python 3.9 or later, standard library only: slow, and not meant to guard anything. It shows that the
rules can be followed without the Rust code, and how a library in another language runs the vectors.

Prints each case that it judges otherwise than the file, then "N passed, N failed".
"""

import base64
import binascii
import hmac
import ipaddress
import json
import pathlib
import re
import sys

import curves

NAT64 = ipaddress.ip_network("64:ff9b::/96")
MAX_TOKEN_LENGTH = 4096
MAX_INTEGER = 2**53 - 1
MAX_SCOPES_LENGTH = 1024
CLOCK_LEEWAY = 60
MAX_RESOURCES_LENGTH = 1024
SIGNATURE_LENGTHS = {"HS256": 32, "EdDSA": 64, "Ed25519": 64, "ES256": 64}

PLAIN = rb"([!#-\[\]-~]+)"
INTEGER = rb"(0|[1-9][0-9]{0,15})"
PAYLOAD = re.compile(
    rb'\{"iss":"' + PLAIN + rb'","aud":(?:"' + PLAIN + rb'"|\["([!-\[\]-~]+)"\]),"sub":"' + INTEGER + rb'","iat":' + INTEGER
    + rb',"exp":' + INTEGER + rb',"sid":"' + INTEGER + rb'","cred":' + INTEGER + rb',"gen":' + INTEGER
    + rb',"pair":' + INTEGER + rb'(?:,"client_id":"' + PLAIN + rb'","jti":"' + INTEGER + rb'-' + INTEGER
    + rb'")?(?:,"scope":"([ !#-\[\]-~]+)")?\}'
)
RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!$-;=?-\[\]-~]+")


class Denied(Exception):
    """With the name of the first rule broken."""


def decode(text):
    """base64url without padding: the one text for these bytes, or malformed."""
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise Denied("malformed") from None
    # The decoder above skips what it does not know, and the way back tells.
    if encode(data) != text:
        raise Denied("malformed")
    return data


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class Key:
    def __init__(self, entry):
        self.alg, kid = entry["alg"], entry["kid"]
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", kid):
            raise ValueError("key id")
        self.material = decode(entry["secret"] if self.alg == "HS256" else entry["public"])
        if self.alg == "HS256" and len(self.material) < 32:
            raise ValueError("under 256 bits")
        if self.alg in ("EdDSA", "Ed25519"):
            self.point = curves.ed25519_point(self.material)
        if self.alg == "ES256":
            self.point = curves.p256_point(self.material)
        self.header = encode(f'{{"alg":"{self.alg}","typ":"at+jwt","kid":"{kid}"}}'.encode("ascii"))

    def verify(self, signed, signature):
        if self.alg == "HS256":
            return hmac.compare_digest(hmac.digest(self.material, signed, "sha256"), signature)
        if self.alg in ("EdDSA", "Ed25519"):
            return curves.ed25519_verify(self.material, self.point, signed, signature)
        return curves.p256_verify(self.point, signed, signature)


def key_or_none(entry):
    try:
        return Key(entry)
    except (ValueError, Denied):
        return None


class Verifier:
    def __init__(self, vectors):
        self.now, self.profile = vectors["now"], vectors["profile"]
        self.keys = [Key(entry) for entry in vectors["keys"]]
        self.clients = {client["id"]: client for client in vectors["clients"]}
        self.sessions = {session["id"]: session for session in vectors["sessions"]}

    def authenticate(self, token):
        """Rules 1 to 6."""
        claims = self.claims(self.open(token))
        if claims["iat"] > self.now + CLOCK_LEEWAY:
            raise Denied("not_yet_valid")
        if self.now >= claims["exp"]:
            raise Denied("expired")
        return claims

    def open(self, token):
        if len(token.encode("utf-8")) > MAX_TOKEN_LENGTH or token.count(".") < 2:
            raise Denied("malformed")
        signed, _, signature = token.rpartition(".")
        header, _, payload = signed.partition(".")
        if len(signature) not in (43, 86):
            raise Denied("malformed")
        key = next((key for key in self.keys if header == key.header), None)
        if key is None:
            raise Denied("unknown_key")
        signature = decode(signature)
        if len(signature) != SIGNATURE_LENGTHS[key.alg]:
            raise Denied("malformed")
        if not key.verify(signed.encode("utf-8"), signature):
            raise Denied("bad_signature")
        return decode(payload)

    def claims(self, payload):
        match = PAYLOAD.fullmatch(payload)
        if not match:
            raise Denied("malformed")
        issuer, audience, audiences, *integers, _, session, pair, scope = match.groups()
        names = ["sub", "iat", "exp", "sid", "cred", "gen", "pair"]
        claims = dict(zip(names, map(int, integers)))
        scopes = [] if scope is None else scope.decode("ascii").split(" ")
        sorted_once = sorted(set(scopes)) == scopes and "" not in scopes
        if max(claims.values()) > MAX_INTEGER or not sorted_once or len(scope or b"") > MAX_SCOPES_LENGTH:
            raise Denied("malformed")
        if session is not None and (int(session), int(pair)) != (claims["sid"], claims["pair"]):
            raise Denied("malformed")
        audiences = [audience.decode("ascii")] if audiences is None else listed(audiences.decode("ascii"))
        if issuer.decode("ascii") != self.profile["issuer"]:
            raise Denied("wrong_issuer")
        if self.profile["audience"] not in audiences:
            raise Denied("wrong_audience")
        return claims | {"scopes": scopes}

    def verify(self, token, caller, requires):
        """All the rules. Returns the scopes that the token gives."""
        claims = self.authenticate(token)
        client = self.clients.get(claims["sub"])
        if client is None or claims["gen"] > client["generation"]:
            raise Denied("not_known")
        if not client["active"]:
            raise Denied("client_inactive")
        if claims["gen"] < client["generation"] or claims["cred"] not in client["credentials"]:
            raise Denied("revoked")
        session = self.sessions.get(claims["sid"])
        if session is None or session["client"] != claims["sub"] or claims["pair"] > session["pair"]:
            raise Denied("not_known")
        if session["ended"]:
            raise Denied("revoked")
        if not permits(client["allowlist"], caller):
            raise Denied("address_not_allowed")
        scopes = [scope for scope in claims["scopes"] if scope in client["scopes"].split()]
        if not set(requires.split()) <= set(scopes):
            raise Denied("scope_missing")
        return " ".join(scopes)

    def verdict(self, case):
        """The verdict and the scopes."""
        try:
            return "ok", self.verify(case["token"], case["caller"], case.get("requires", ""))
        except Denied as denied:
            return str(denied), None


def listed(text):
    """The resources of a list, whose ends are cut off."""
    resources = text.split('","')
    good = len(resources) > 1 and sorted(set(resources)) == resources and len(text) <= MAX_RESOURCES_LENGTH
    if not good or not all(map(RESOURCE.fullmatch, resources)):
        raise Denied("malformed")
    return resources


def permits(allowlist, caller):
    if caller is None:
        return False
    address = ipaddress.ip_address(caller)
    address = getattr(address, "ipv4_mapped", None) or address
    addresses = [address]
    if address in NAT64:
        addresses.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return not allowlist or any(one in ipaddress.ip_network(entry) for one in addresses for entry in allowlist)


def damaged(token):
    """Every strict prefix, and every change of one bit that leaves a text."""
    for length in range(len(token)):
        yield token[:length]
    for bit in range(7 * len(token)):
        at, mask = bit // 7, 1 << bit % 7
        yield token[:at] + chr(ord(token[at]) ^ mask) + token[at + 1 :]


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("tokens.json")
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)
    verifier = Verifier(vectors)
    passed, failures = 0, []

    for entry in vectors["refused_keys"]:
        if key_or_none(entry) is None:
            passed += 1
        else:
            failures.append(f"key {entry['kid']!r}: taken")
    for case in vectors["cases"]:
        verdict = verifier.verdict(case)
        if verdict == (case["verdict"], case.get("scopes")):
            passed += 1
        else:
            failures.append(f"{case['name']}: {verdict}, not {case['verdict']}")
    # Of one token: the curves are too slow here for more.
    case = next(case for case in vectors["cases"] if case["verdict"] == "ok")
    accepted = [text for text in damaged(case["token"]) if verifier.verdict({**case, "token": text})[0] == "ok"]
    if not accepted:
        passed += 1
    else:
        failures.append(f"{case['name']}: {len(accepted)} damaged ones taken")

    for failure in failures:
        print(failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
