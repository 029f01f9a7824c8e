"""Ed25519 (RFC 8032) and ECDSA with P-256 and SHA-256 (FIPS 186-5), verification only, for run.py.

Slow and not in constant time, which verification of public texts with public keys needs not be.
"""

import hashlib

# Ed25519: -x^2 + y^2 = 1 + d x^2 y^2, in affine coordinates.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def _ed_add(a, b):
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - t, -1, P)
    return x % P, y % P


def _ed_times(n, point):
    total = (0, 1)
    while n:
        if n & 1:
            total = _ed_add(total, point)
        point, n = _ed_add(point, point), n >> 1
    return total


def ed25519_point(data):
    """The point of these 32 bytes, or ValueError."""
    if len(data) != 32:
        raise ValueError("length")
    y, sign = int.from_bytes(data, "little") & (2**255 - 1), data[31] >> 7
    if y >= P:
        raise ValueError("not reduced")
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        raise ValueError("not on the curve")
    return (P - x if x & 1 != sign else x), y


ED_BASE = ed25519_point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def ed25519_verify(public, point, message, signature):
    try:
        r = ed25519_point(signature[:32])
    except ValueError:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L or _ed_times(8, point) == (0, 1) or _ed_times(8, r) == (0, 1):
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    return _ed_times(s, ED_BASE) == _ed_add(r, _ed_times(h, point))


# P-256: y^2 = x^3 - 3 x + b, in affine coordinates, None for the point at infinity.

Q = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
P256_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def _p256_add(a, b):
    if a is None or b is None:
        return a or b
    (x1, y1), (x2, y2) = a, b
    if x1 == x2 and (y1 + y2) % Q == 0:
        return None
    slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, Q) if a == b else (y2 - y1) * pow(x2 - x1, -1, Q)
    x = (slope * slope - x1 - x2) % Q
    return x, (slope * (x1 - x) - y1) % Q


def _p256_times(n, point):
    total = None
    while n:
        if n & 1:
            total = _p256_add(total, point)
        point, n = _p256_add(point, point), n >> 1
    return total


def p256_point(data):
    """The point of 65 bytes (SEC 1 §2.3.3, uncompressed), or ValueError."""
    if len(data) != 65 or data[0] != 4:
        raise ValueError("form")
    x, y = int.from_bytes(data[1:33], "big"), int.from_bytes(data[33:], "big")
    if x >= Q or y >= Q or (y * y - x * x * x + 3 * x - B) % Q:
        raise ValueError("not on the curve")
    return x, y


def p256_verify(point, message, signature):
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    # Above half of N, s is the twin of the one that the issuer writes.
    if not (0 < r < N and 0 < s <= N // 2):
        return False
    e = int.from_bytes(hashlib.sha256(message).digest(), "big")
    w = pow(s, -1, N)
    sum_ = _p256_add(_p256_times(e * w % N, P256_BASE), _p256_times(r * w % N, point))
    return sum_ is not None and sum_[0] % N == r
