"""The keys that sign tokens: secrets, public keys of the settings, and a JSON Web Key Set.

Sans-I/O, but for key files that are read at the start. What is to be read of an endpoint is asked
for by `KeysWantedError`; `jwks` reads it.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from msgspec import Struct

from actors.errors import RaywireError, SettingsError, UnavailableError

HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
"""What a secret signs. Never accepted with a public key: everybody has that."""
REREAD_S: Final = 10.0
"""The shortest time between two reads of an endpoint, whatever tokens ask for."""
KEYS_AGE_MAX_S: Final = 3600.0
"""Keys older than this are read again, so that those that were taken back end."""
_KID_MAX: Final = 256
_EC_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
PrivateKey: TypeAlias = (
    RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey
)

log = logging.getLogger(__name__)


class KeysWantedError(RaywireError):
    """The keys must be read before a token can be judged. Takes the `KeySet`."""

    def __init__(self, keys: "KeySet") -> None:
        super().__init__(keys)
        self.keys = keys


class NoKeyError(RaywireError):
    """No key has that name."""


def algorithms_of(key: PublicKey | PrivateKey) -> tuple[str, ...]:
    """Return which algorithms a key is for; none: it is of an unknown curve.

    RFC 7518, section 3.1, and RFC 8037.
    """
    if isinstance(key, RSAPublicKey | RSAPrivateKey):
        return ("RS256", "RS384", "RS512")
    if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey):
        name = _EC_ALGORITHMS.get(key.curve.name)
        return (name,) if name is not None else ()
    return ("EdDSA",)


def read_public_key(given: str, setting: str) -> str:
    """Return a public key as PEM text.

    Args:
        given: The PEM text, or the name of a file with it.
        setting: Where it stands, for errors.

    Raises:
        SettingsError: There is no such file, or it holds no key for any algorithm.
    """
    text = given
    if not given.lstrip().startswith("-----"):
        try:
            text = Path(given).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{setting}: {given!r} cannot be read ({error}): give PEM text or a file with it"
            ) from error
    parse_public_key(text, setting)
    return text


def parse_public_key(text: str, setting: str) -> PublicKey:
    """Return the public key of PEM text.

    Raises:
        SettingsError: It is none, or one for no algorithm.
    """
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, TypeError) as error:
        # Not the error's text: who gave a private key by mistake does not want it in a log.
        raise SettingsError(
            f"{setting}: holds no public key: write PEM text, -----BEGIN PUBLIC KEY-----"
        ) from error
    if not isinstance(key, PublicKey) or not algorithms_of(key):
        raise SettingsError(
            f"{setting}: is no key for tokens: take RSA, EC (P-256, P-384, P-521) or Ed25519"
        )
    return key


def parse_private_key(text: bytes) -> PrivateKey:
    """Return the private key of PEM text.

    Raises:
        ValueError: It is none, one behind a password, or one for no algorithm.
    """
    try:
        key = load_pem_private_key(text, None)
    except TypeError as error:
        raise ValueError("the key needs a password, which cannot be given") from error
    except ValueError as error:
        raise ValueError("it holds no private key as PEM text") from error
    if not isinstance(key, PrivateKey) or not algorithms_of(key):
        raise ValueError("it is no key for tokens: take RSA, EC (P-256, P-384, P-521) or Ed25519")
    return key


class _Key(Struct):
    kty: str = ""
    kid: str = ""
    use: str = "sig"


class _KeyList(Struct):
    keys: list[msgspec.Raw]


class KeySet:
    """The public keys that an endpoint publishes, as far as they are known. Reads nothing itself.

    A token with an unknown key makes it want a read, at most one in `REREAD_S`. While the endpoint
    does not answer, the keys that are known go on being good.

    Args:
        url: The endpoint.
        clock: Monotonic seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self.url = url
        self._clock = clock
        self._keys: Mapping[str, PublicKey] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._trouble = False
        self._reading = False
        self._missed: set[str] = set()
        self._absent: set[str] = set()

    def find(self, kid: str) -> PublicKey:
        """Return the key of that name.

        Raises:
            KeysWantedError: A read must come first. Ask again when it has succeeded or failed.
            NoKeyError: The endpoint was read for this key, and has none.
            UnavailableError: Whether there is such a key cannot be known now.
        """
        if not kid or len(kid) > _KID_MAX:
            raise NoKeyError("the token names no key (kid) of the key set")
        key = self._keys.get(kid)
        if key is not None and not (self._is_old() and self._may_read() and not self._reading):
            return key
        if self._reading or self._may_read():
            self._missed.add(kid)
            raise KeysWantedError(self)
        if kid in self._absent:
            raise NoKeyError(f"the key set has no key {kid!r}")
        # The last read was for other keys: it cannot tell whether this one is wrong or too new.
        why = "does not answer" if self._trouble else "was read just now"
        raise UnavailableError(f"the key set {why}")

    def begin(self) -> bool:
        """Tell whether a read is still wanted, and if so count it as begun."""
        if self._reading or not self._may_read():
            return False
        self._reading = True
        return True

    def take(self, text: bytes) -> None:
        """Take what the endpoint answered; what is no key for tokens is passed over."""
        try:
            listed = msgspec.json.decode(text, type=_KeyList).keys
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.fail(f"no JSON Web Key Set: {error}")
            return
        found = dict(pair for each in listed if (pair := _key(each)) is not None)
        self._keys = found
        self._read_at = self._tried_at = self._clock()
        self._absent = self._missed - found.keys()
        self._missed = set()
        self._reading = self._trouble = False
        log.info("token keys read", extra={"url": self.url, "keys": len(found)})

    def end(self) -> None:
        """Know that a read is over, however it ended."""
        if self._reading:
            self.fail("the read broke off")

    def fail(self, why: str) -> None:
        """Know that the endpoint could not be read; keys that are known stay."""
        log.warning("token keys not read", extra={"url": self.url, "why": why[:300]})
        self._tried_at = self._clock()
        self._missed = set()
        self._reading, self._trouble = False, True

    def _may_read(self) -> bool:
        return self._tried_at is None or self._clock() - self._tried_at >= REREAD_S

    def _is_old(self) -> bool:
        return self._read_at is None or self._clock() - self._read_at > KEYS_AGE_MAX_S


def _key(text: msgspec.Raw) -> tuple[str, PublicKey] | None:
    """Return name and key of a member of the set (RFC 7517); None: it signs no tokens."""
    try:
        facts = msgspec.json.decode(text, type=_Key)
        if not facts.kid or facts.use != "sig" or facts.kty == "oct":
            return None
        key = jwt.PyJWK.from_json(bytes(text).decode()).key
    except (msgspec.DecodeError, jwt.PyJWTError, ValueError, TypeError):
        return None
    # A private key here is a mistake of whoever publishes it: not one to build on.
    return (facts.kid, key) if isinstance(key, PublicKey) and algorithms_of(key) else None
