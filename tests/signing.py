"""Real keys for tests of tokens, one pair for each algorithm."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from serve.auth.keys import PrivateKey

_CURVES: Final[dict[str, Callable[[], ec.EllipticCurve]]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}
PUBLIC_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")


@cache
def key(algorithm: str, name: str = "") -> PrivateKey:
    """Return the private key for an algorithm; another for each name."""
    if algorithm.startswith("RS"):
        return rsa.generate_private_key(65_537, 2048)
    if algorithm == "EdDSA":
        return ed448.Ed448PrivateKey.generate() if name == "448" else ed25519_key()
    return ec.generate_private_key(_CURVES[algorithm]())


def ed25519_key() -> ed25519.Ed25519PrivateKey:
    """Return a new Ed25519 key."""
    return ed25519.Ed25519PrivateKey.generate()


def private_pem(private: PrivateKey) -> str:
    """Return a private key as PEM text."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(private: PrivateKey) -> str:
    """Return the public half of a key as PEM text."""
    public = private.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(private: PrivateKey, kid: str, algorithm: str, **more: Any) -> dict[str, Any]:
    """Return the public half of a key as a member of a JSON Web Key Set."""
    facts = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key())
    return {**json.loads(facts), "kid": kid, "use": "sig", **more}


def key_set(*members: dict[str, Any]) -> bytes:
    """Return a JSON Web Key Set."""
    return json.dumps({"keys": members}).encode()
