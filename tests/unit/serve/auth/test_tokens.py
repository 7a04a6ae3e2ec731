"""What tokens say, and which are valid."""

import base64
import contextlib
import hmac
import json
from typing import Any

import jwt
import pytest

from actors.errors import SettingsError, UnavailableError
from actors.settings.tree import TokenSettings
from serve.auth.keys import REREAD_S, KeysWantedError
from serve.auth.tokens import ALGORITHMS, TokenError, TokenExpiredError, Verifier, make_token
from tests.signing import PUBLIC_ALGORITHMS, jwk, key, key_set, private_pem, public_pem

SECRET = "a secret that is long enough for every HMAC there is: 64 bytes and more"
NOW_S = 1_800_000_000.0


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def verifier(clock: Clock | None = None, secret: str = SECRET, **settings: Any) -> Verifier:
    """Make a verifier, at a fixed time."""
    return Verifier(
        TokenSettings.model_validate(settings),
        secret,
        "auth.tokens",
        wall=lambda: NOW_S,
        clock=clock or Clock(),
    )


def token(**claims: Any) -> str:
    """Sign any claims."""
    return jwt.encode(claims, SECRET, algorithm="HS256")


def b64(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize("algorithm", PUBLIC_ALGORITHMS)
def test_public_key_verifies_what_its_private_key_signed(algorithm: str) -> None:
    """RS*, ES* and EdDSA, by the algorithm that fits the key; another key of the kind does not."""
    private = key(algorithm)
    made = make_token(private, "ann", now_s=NOW_S, ttl_s=60, algorithm=algorithm)
    claims = verifier(public_keys=[public_pem(private)]).claims(made)
    assert (claims.user, claims.ttl_s) == ("ann", 60)
    with pytest.raises(TokenError, match="signature is wrong"):
        verifier(public_keys=[public_pem(key(algorithm, "other"))]).claims(made)


def test_ed448_is_eddsa_too() -> None:
    """RFC 8037 has two curves."""
    private = key("EdDSA", "448")
    made = make_token(private, "ann", now_s=NOW_S, algorithm="EdDSA")
    assert verifier(public_keys=[public_pem(private)]).claims(made).user == "ann"


def test_any_of_several_keys_will_do() -> None:
    """While keys are changed, the old and the new one hold, and the secret beside them."""
    old, new = key("ES256"), key("ES256", "new")
    judge = verifier(public_keys=[public_pem(old), public_pem(new)])
    for signer, algorithm in ((old, "ES256"), (new, "ES256"), (SECRET, "HS512")):
        made = make_token(signer, "ann", now_s=NOW_S, algorithm=algorithm)
        assert judge.claims(made).user == "ann"


def test_public_key_is_no_secret() -> None:
    """HS256 "signed" with the public key, which everybody has, is not valid."""
    public = public_pem(key("RS256"))
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "ann"})
    )
    signer = jwt.get_algorithm_by_name("HS256")
    signature = signer.sign(header + b"." + payload, public.encode())
    forged = b".".join([header, payload, base64.urlsafe_b64encode(signature).rstrip(b"=")])
    for secret in ("", SECRET):
        with pytest.raises(TokenError):
            verifier(secret=secret, public_keys=[public]).claims(forged.decode())


@pytest.mark.parametrize("algorithm", ["none", "PS256", "HS256"])
def test_algorithm_without_a_key_is_refused(algorithm: str) -> None:
    """Nor is one that we do not know tried with any key."""
    signers: dict[str, Any] = {"none": None, "PS256": key("RS256"), "HS256": SECRET}
    made = jwt.encode({"sub": "ann"}, signers[algorithm], algorithm=algorithm)
    with pytest.raises(TokenError, match=f"no key for {algorithm}"):
        verifier(secret="", public_keys=[public_pem(key("RS256"))]).claims(made)


def test_curve_must_be_that_of_the_algorithm() -> None:
    """A P-256 key is not tried for ES384."""
    made = make_token(key("ES384"), "ann", now_s=NOW_S, algorithm="ES384")
    with pytest.raises(TokenError, match="no key for ES384"):
        verifier(public_keys=[public_pem(key("ES256"))]).claims(made)


@pytest.mark.parametrize(
    ("settings", "claims", "valid"),
    [
        ({}, {"aud": "a", "iss": "i"}, True),
        ({"audience": "a"}, {"aud": "a"}, True),
        ({"audience": "a"}, {"aud": ["b", "a"]}, True),
        ({"audience": "a"}, {"aud": "b"}, False),
        ({"audience": "a"}, {"aud": []}, False),
        ({"audience": "a"}, {}, False),
        ({"issuer": "i"}, {"iss": "i"}, True),
        ({"issuer": "i"}, {"iss": "j"}, False),
        ({"issuer": "i"}, {}, False),
    ],
)
def test_audience_and_issuer(
    settings: dict[str, Any], claims: dict[str, Any], *, valid: bool
) -> None:
    """`aud` and `iss` are checked where they are set, and must be there then."""
    judge = verifier(**settings)
    if valid:
        assert judge.claims(token(sub="ann", **claims)).user == "ann"
    else:
        with pytest.raises(TokenError) as caught:
            judge.claims(token(sub="ann", **claims))
        assert not isinstance(caught.value, TokenExpiredError)


@pytest.mark.parametrize("claims", [{"exp": NOW_S}, {"exp": NOW_S - 1}, {"nbf": NOW_S + 1}])
def test_token_out_of_its_time(claims: dict[str, Any]) -> None:
    """Past `exp`, or before `nbf`; a verifier that looks at no times takes it."""
    with pytest.raises(TokenExpiredError):
        verifier().claims(token(**claims))
    assert verifier().claims(token(**claims), timeless=True).ttl_s is None


@pytest.mark.parametrize(
    ("claims", "ttl_s"),
    [
        ({}, None),
        ({"exp": NOW_S + 9}, 9),
        ({"exp": NOW_S + 9, "expire_at": NOW_S + 99}, 99),
        ({"exp": NOW_S + 9, "expire_at": 0}, None),
        ({"expire_at": NOW_S - 1}, -1),
    ],
)
def test_expire_at_counts_before_exp(claims: dict[str, Any], ttl_s: float | None) -> None:
    """What the token is for may end at another time than the token; 0: never."""
    assert verifier().claims(token(**claims)).ttl_s == ttl_s


def test_claims_of_a_connection_token() -> None:
    """`subs` wins over `channels`, base64 over JSON; `meta` is kept."""
    claims = verifier().claims(
        token(
            sub="ann",
            b64info=b64({"name": "Ann"}),
            info=1,
            meta={"role": "x"},
            channels=["a", "b"],
            subs={
                "b": {
                    "b64info": b64(2),
                    "b64data": b64({"d": "\n"}),
                    "override": {"presence": {"value": True}, "join_leave": {}},
                },
                "c": {"info": {"i": 1}, "data": [1]},
            },
        )
    )
    assert (claims.info, claims.meta, claims.channel) == ({"name": "Ann"}, {"role": "x"}, None)
    assert list(claims.channels) == ["a", "b", "c"]
    b, c = claims.channels["b"], claims.channels["c"]
    assert (b.info, json.loads(bytes(b.data))) == (2, {"d": "\n"})
    assert dict(b.override) == {"presence": True, "join_leave": False}
    assert (c.info, bytes(c.data), dict(c.override)) == ({"i": 1}, b"[1]", {})
    assert (claims.channels["a"].info, bytes(claims.channels["a"].data)) == (None, b"")


def test_claims_of_a_subscription_token() -> None:
    """What it gives is in `grant`, with its own time."""
    claims = verifier().claims(
        token(sub="ann", channel="c", client="id", info=1, data={}, expire_at=NOW_S + 5)
    )
    assert (claims.channel, claims.client) == ("c", "id")
    assert (claims.grant.info, bytes(claims.grant.data), claims.grant.ttl_s) == (1, b"{}", 5)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 7},
        {"exp": "soon"},
        {"channels": "c"},
        {"subs": ["c"]},
        {"subs": {"c": {"override": {"presence": True}}}},
        {"b64info": "not base64!"},
        {"b64info": base64.b64encode(b"{").decode()},
        {"b64data": base64.b64encode(b"\xff").decode(), "channel": "c"},
        {"b64info": "\u00e9"},
        {"subs": {"c": {"b64data": "\u00e9"}}},
        {"b64info": base64.b64encode(b"[" * 200_000 + b"]" * 200_000).decode()},
    ],
)
def test_claims_of_the_wrong_shape(claims: dict[str, Any]) -> None:
    """A token whose claims are not what they should be is not valid."""
    judge = verifier()
    signed = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256")
    with pytest.raises(TokenError):
        judge.claims(signed)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "ü", "." * 2, "e30.e30.", "[" * 5000])
def test_what_is_no_token(text: str) -> None:
    """Whatever a client sends, it is told, and nothing else happens."""
    with pytest.raises(TokenError):
        verifier(public_keys=[public_pem(key("EdDSA"))]).claims(text)


def test_header_of_any_depth_is_judged() -> None:
    """One that can just be read may be too deep where its signature is looked at: PyJWT 2.10."""
    judge = verifier()
    for depth in range(1000):
        header = b'{"alg":"HS256","x":' + b"[" * depth + b"]" * depth + b"}"
        text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, b"{}"))
        signature = hmac.digest(SECRET.encode(), text, "sha256")
        made = text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
        with contextlib.suppress(TokenError):
            assert judge.claims(made.decode()).user == ""


def test_settings_with_an_unusable_key_are_refused() -> None:
    """The error names the setting, not what it holds."""
    with pytest.raises(SettingsError, match=r"auth\.tokens\.public_keys: holds no public key"):
        verifier(public_keys=["-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----"])
    with pytest.raises(ValueError, match="holds a private key"):
        verifier(public_keys=[private_pem(key("ES256"))])


@pytest.mark.parametrize("algorithm", PUBLIC_ALGORITHMS)
def test_key_set_verifies_by_key_id(algorithm: str) -> None:
    """The keys must be read once; then tokens that name one are judged by it."""
    private = key(algorithm)
    judge = verifier(secret="", jwks_url="https://keys.example/set")
    made = make_token(private, "ann", now_s=NOW_S, algorithm=algorithm, kid="k1")
    with pytest.raises(KeysWantedError) as caught:
        judge.claims(made)
    assert caught.value.keys is judge.keys
    assert judge.keys is not None
    assert judge.keys.begin()
    judge.keys.take(key_set(jwk(private, "k1", algorithm)))
    assert judge.claims(made).user == "ann"

    other = make_token(key(algorithm, "other"), "ann", now_s=NOW_S, algorithm=algorithm, kid="k1")
    with pytest.raises(TokenError, match="signature is wrong"):
        judge.claims(other)


def test_key_set_is_only_asked_for_what_it_may_have() -> None:
    """No key id, a secret's algorithm, a wrong kind: no read is wanted, the token is not valid."""
    judge = verifier(jwks_url="https://keys.example/set")
    for made in (
        make_token(key("ES256"), "ann", now_s=NOW_S, algorithm="ES256"),
        make_token(SECRET + "x", "ann", now_s=NOW_S, kid="k1"),
        make_token(key("ES256"), "ann", now_s=NOW_S, algorithm="ES256", kid="k" * 300),
    ):
        with pytest.raises(TokenError):
            judge.claims(made)
    assert judge.keys is not None
    judge.keys.take(key_set(jwk(key("RS256"), "k1", "RS256")))
    with pytest.raises(TokenError, match="is not for ES256"):
        judge.claims(make_token(key("ES256"), "ann", now_s=NOW_S, algorithm="ES256", kid="k1"))


def test_key_that_cannot_be_known_makes_no_token_invalid() -> None:
    """While the endpoint fails, whoever brings a token with an unknown key may come back."""
    clock = Clock()
    judge = verifier(clock, jwks_url="https://keys.example/set")
    assert judge.keys is not None
    assert judge.keys.begin()
    judge.keys.fail("down")
    made = make_token(key("ES256"), "ann", now_s=NOW_S, algorithm="ES256", kid="k1")
    with pytest.raises(UnavailableError):
        judge.claims(made)
    clock.now = REREAD_S
    with pytest.raises(KeysWantedError):
        judge.claims(made)


def test_made_token_has_what_was_asked_for() -> None:
    """A subscription token, a key id, and further claims, which win."""
    made = make_token(
        SECRET,
        "ann",
        now_s=NOW_S,
        ttl_s=5,
        info=[1],
        channel="c",
        kid="k",
        more={"sub": "bob", "meta": 1},
    )
    assert jwt.get_unverified_header(made)["kid"] == "k"
    payload = jwt.decode(made, options={"verify_signature": False})
    assert payload == {
        "sub": "bob",
        "iat": NOW_S,
        "exp": NOW_S + 5,
        "info": [1],
        "channel": "c",
        "meta": 1,
    }
    assert set(PUBLIC_ALGORITHMS) < set(ALGORITHMS)
