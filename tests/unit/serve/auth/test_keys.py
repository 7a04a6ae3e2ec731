"""Keys of the settings, and what is known of a key set's keys when."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from actors.errors import SettingsError, UnavailableError
from serve.auth.keys import (
    KEYS_AGE_MAX_S,
    REREAD_S,
    KeySet,
    KeysWantedError,
    NoKeyError,
    algorithms_of,
    parse_private_key,
    read_public_key,
)
from tests.signing import jwk, key, key_set, private_pem, public_pem

SETTING = "auth.tokens.public_keys"


class Endpoint:
    """A key set with a clock, and what a test answers for the endpoint."""

    def __init__(self) -> None:
        self.now = 100.0
        self.keys = KeySet("https://keys.example/set", lambda: self.now)

    def wants(self, kid: str) -> bool:
        """Whether a read must come before that key is known."""
        try:
            self.keys.find(kid)
        except KeysWantedError:
            return True
        return False

    def answer(self, *kids: str) -> None:
        """Have a read succeed."""
        assert self.keys.begin()
        self.keys.take(key_set(*(jwk(key("EdDSA", kid), kid, "EdDSA") for kid in kids)))


def test_key_is_found_after_one_read() -> None:
    """The first token makes it read; the second finds the key."""
    endpoint = Endpoint()
    assert endpoint.wants("a")
    endpoint.answer("a", "b")
    assert endpoint.keys.find("b") == key("EdDSA", "b").public_key()
    assert not endpoint.keys.begin()


def test_unknown_keys_make_it_read_once_in_a_while() -> None:
    """Made-up key ids cost one read in `REREAD_S` at most, and are known not to be there."""
    endpoint = Endpoint()
    assert endpoint.wants("a")
    assert endpoint.wants("made up")
    endpoint.answer("a")
    with pytest.raises(NoKeyError):
        endpoint.keys.find("made up")
    with pytest.raises(UnavailableError):  # Not looked for yet: it may be new.
        endpoint.keys.find("later")
    endpoint.now += REREAD_S
    assert endpoint.wants("later")
    endpoint.answer("a", "later")
    assert not endpoint.wants("later")


def test_key_that_was_missing_is_looked_for_again() -> None:
    """A key that was published after its first token is found when the time for a read comes."""
    endpoint = Endpoint()
    assert endpoint.wants("new")
    endpoint.answer("a")
    with pytest.raises(NoKeyError):
        endpoint.keys.find("new")
    endpoint.now += REREAD_S
    assert endpoint.wants("new")
    endpoint.answer("a", "new")
    assert not endpoint.wants("new")


def test_failing_endpoint_takes_no_keys_away() -> None:
    """Known keys stay good however long it fails; it is not asked more often for that."""
    endpoint = Endpoint()
    assert endpoint.wants("a")
    endpoint.answer("a")
    endpoint.now += KEYS_AGE_MAX_S + 1
    assert endpoint.wants("a")
    assert endpoint.keys.begin()
    assert not endpoint.wants("a")  # While it is read, nobody waits for a known key.
    endpoint.keys.fail("down")
    assert not endpoint.wants("a")
    assert not endpoint.keys.begin()
    endpoint.now += REREAD_S
    assert endpoint.wants("a")


def test_key_that_was_taken_back_ends() -> None:
    """Once an hour the keys are read again, and what is not there any more is not good."""
    endpoint = Endpoint()
    assert endpoint.wants("a")
    endpoint.answer("a")
    endpoint.now += KEYS_AGE_MAX_S + 1
    assert endpoint.wants("a")
    endpoint.answer("b")
    with pytest.raises(NoKeyError):
        endpoint.keys.find("a")


def test_read_that_broke_off_is_a_failed_one() -> None:
    """Else nobody would read again."""
    endpoint = Endpoint()
    assert endpoint.keys.begin()
    endpoint.keys.end()
    endpoint.now += REREAD_S
    assert endpoint.keys.begin()


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"keys":{}}', b"\xff", b"[" * 9000])
def test_answer_that_is_no_key_set_is_a_failure(text: bytes) -> None:
    """What was known stays."""
    endpoint = Endpoint()
    assert endpoint.wants("a")
    endpoint.answer("a")
    endpoint.now += REREAD_S
    assert endpoint.keys.begin()
    endpoint.keys.take(text)
    assert not endpoint.wants("a")
    with pytest.raises(UnavailableError):
        endpoint.keys.find("b")


def test_only_public_keys_for_signatures_are_taken() -> None:
    """Secrets, keys for encryption, private keys, unknown kinds and nonsense are passed over."""
    endpoint = Endpoint()
    good = jwk(key("ES256"), "good", "ES256")
    numbers = {"kty": "RSA", "kid": "numbers", "n": 1, "e": 2}
    private = {**good, "kid": "private", "d": good["x"]}
    members = [
        good,
        {"kty": "oct", "kid": "oct", "k": "c2VjcmV0"},
        jwk(key("RS256"), "enc", "RS256", use="enc"),
        private,
        numbers,
        {"kty": "EC", "kid": "curve", "crv": "P-1"},
        {"kty": "new", "kid": "kind"},
        {"kid": "nothing"},
        7,
        None,
        {**good, "kid": 7},
    ]
    assert endpoint.wants("good")
    assert endpoint.keys.begin()
    endpoint.keys.take(json.dumps({"keys": members}).encode())
    assert not endpoint.wants("good")
    endpoint.now += REREAD_S
    for kid in ("oct", "enc", "private", "numbers", "curve", "kind", "nothing"):
        assert endpoint.wants(kid)


def test_public_key_is_given_as_text_or_file(tmp_path: Path) -> None:
    """Either way the text is what travels to the edges."""
    text = public_pem(key("RS256"))
    file = tmp_path / "key.pem"
    file.write_text(text)
    assert read_public_key(text, SETTING) == read_public_key(str(file), SETTING) == text


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    """The error names the setting and the remedy, and never shows what a file holds."""
    with pytest.raises(SettingsError, match=f"{SETTING}: .*cannot be read"):
        read_public_key(str(tmp_path / "none.pem"), SETTING)
    file = tmp_path / "private.pem"
    file.write_text(private_pem(key("ES256")))
    with pytest.raises(SettingsError, match="holds no public key") as caught:
        read_public_key(str(file), SETTING)
    assert file.read_text().splitlines()[1] not in str(caught.value)
    for odd in (
        x25519.X25519PrivateKey.generate().public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
    ):
        pem = odd.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with pytest.raises(SettingsError, match="no key for tokens"):
            read_public_key(pem, SETTING)


def test_private_key_says_what_it_is_for() -> None:
    """Which algorithms fit follows from the key."""
    for algorithm, fitting in [
        ("RS384", ("RS256", "RS384", "RS512")),
        ("ES384", ("ES384",)),
        ("EdDSA", ("EdDSA",)),
    ]:
        found = parse_private_key(private_pem(key(algorithm)).encode())
        assert algorithms_of(found) == fitting


def test_what_is_no_private_key_is_refused() -> None:
    """Nor is one behind a password, or for something else."""
    locked = key("ES256").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    with pytest.raises(ValueError, match="needs a password"):
        parse_private_key(locked)
    with pytest.raises(ValueError, match="no private key"):
        parse_private_key(public_pem(key("ES256")).encode())
    other = private_pem(ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(ValueError, match="no key for tokens"):
        parse_private_key(other.encode())
