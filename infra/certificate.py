"""A key and a certificate for the parts of one server, which trust nothing else: mutual TLS between them.

The standard library makes no certificates, and a package that does would be the largest of all. What is made here
signs itself once; all that keeps a connection secret is left to the TLS of the servers.
"""

from __future__ import annotations

import base64
import hashlib
import secrets

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
"""The curve P-256 (FIPS 186-4, D.1.2.3): y² = x³ - 3x + b over the prime p, with a point of order n."""
_INTEGER, _BITS, _BYTES, _OID, _TEXT, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x06, 0x0C, 0x30, 0x31
_EC_KEY, _P256 = bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d030107")
_SHA256, _NAME, _CONSTRAINTS = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("550403"), bytes.fromhex("551d13")
_ALWAYS = ((0x17, b"000101000000Z"), (0x18, b"99991231235959Z"))
"""From 2000 on (UTCTime) without an end: valid whatever the clock says."""

Point = tuple[int, int] | None
"""A point of the curve; None is its zero."""


def make(name: str) -> str:
    """Return a new key and the certificate that it signs for itself, in one PEM text.

    Args:
        name: the common name, in at most 64 letters.
    """
    key = secrets.randbelow(_N - 1) + 1
    at = times(key, _G)
    assert at is not None
    public = b"\x04" + at[0].to_bytes(32) + at[1].to_bytes(32)
    body = _body(name, public)
    signature = _sequence(*(_integer(number) for number in sign(key, body)))
    certificate = _sequence(body, _sequence(_der(_OID, _SHA256)), _der(_BITS, b"\x00", signature))
    private = _sequence(
        *(_integer(1), _der(_BYTES, key.to_bytes(32)), _der(0xA0, _der(_OID, _P256))),
        _der(0xA1, _der(_BITS, b"\x00", public)),
    )
    return _pem("CERTIFICATE", certificate) + _pem("EC PRIVATE KEY", private)


def _body(name: str, public: bytes) -> bytes:
    """Return what is signed: a certificate of version 3 that may sign, namely itself (RFC 5280, 4.1)."""
    who = _sequence(_der(_SET, _sequence(_der(_OID, _NAME), _der(_TEXT, name.encode()))))
    authority = _der(_BYTES, _sequence(_der(0x01, b"\xff")))
    constraints = _sequence(_der(_OID, _CONSTRAINTS), _der(0x01, b"\xff"), authority)
    return _sequence(
        _der(0xA0, _integer(2)),
        _integer(secrets.randbits(127) + 1),
        _sequence(_der(_OID, _SHA256)),
        who,
        _sequence(*(_der(*when) for when in _ALWAYS)),
        who,
        _sequence(_sequence(_der(_OID, _EC_KEY), _der(_OID, _P256)), _der(_BITS, b"\x00", public)),
        _der(0xA3, _sequence(constraints)),
    )


def sign(key: int, message: bytes) -> tuple[int, int]:
    """Return a signature of a message's SHA-256 (ECDSA)."""
    digest = int.from_bytes(hashlib.sha256(message).digest())
    while True:
        once = secrets.randbelow(_N - 1) + 1
        at = times(once, _G)
        r = at[0] % _N if at else 0
        s = pow(once, -1, _N) * (digest + r * key) % _N
        if r and s:
            return r, s


def times(factor: int, point: Point) -> Point:
    """Add a point to itself so many times."""
    total: Point = None
    while factor:
        total = plus(total, point) if factor & 1 else total
        point, factor = plus(point, point), factor >> 1
    return total


def plus(a: Point, b: Point) -> Point:
    """Add two points."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % _P == 0:
        return None
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, _P) % _P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _P) % _P
    x = (slope * slope - a[0] - b[0]) % _P
    return x, (slope * (a[0] - x) - a[1]) % _P


def on_curve(point: tuple[int, int]) -> bool:
    """Tell whether a point is one of P-256."""
    x, y = point
    return (y * y - (x**3 - 3 * x + _B)) % _P == 0


def _der(tag: int, *parts: bytes) -> bytes:
    """Return a value of DER with its tag and length."""
    body = b"".join(parts)
    size = len(body)
    octets = size.to_bytes((size.bit_length() + 7) // 8 or 1)
    return bytes([tag]) + (octets if size < 0x80 else bytes([0x80 | len(octets)]) + octets) + body


def _sequence(*parts: bytes) -> bytes:
    return _der(_SEQUENCE, *parts)


def _integer(number: int) -> bytes:
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1))  # the first bit is that of the sign


def _pem(label: str, der: bytes) -> str:
    text = base64.encodebytes(der).decode("ascii").replace("\n", "")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
