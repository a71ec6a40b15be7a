"""A key and a certificate for the parts of one server, which trust nothing else: mutual TLS between them."""

from __future__ import annotations

from datetime import UTC, datetime

ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
"""Valid whatever the clock says; the last second is RFC 5280's for 'no end' (4.1.2.5)."""


def make(name: str) -> str:
    """Return a new key (P-256) and the certificate that it signs for itself, in one PEM text.

    Args:
        name: the common name, in at most 64 letters.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin, end = ALWAYS
    builder = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), begin, end)
    authority = x509.BasicConstraints(ca=True, path_length=None)  # it signs itself, and so stands for its own authority
    signed = builder.add_extension(authority, critical=True).sign(key, hashes.SHA256())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return (signed.public_bytes(serialization.Encoding.PEM) + text).decode("ascii")
