import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.sealing import OpenFailed, SealingKeys, Suite, open_small, seal_small

KEYS = SealingKeys(b"\7" * 32, "test")
suites = st.sampled_from(Suite)


@given(suites, st.binary(max_size=64), st.binary(max_size=500))
def test_open_returns_what_was_sealed(suite: Suite, ad: bytes, plaintext: bytes) -> None:
    assert KEYS.open(suite, ad, KEYS.seal(suite, ad, plaintext)) == plaintext


@given(suites, st.binary(max_size=100), st.data())
def test_one_flipped_bit_never_opens(suite: Suite, plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(KEYS.seal(suite, b"ad", plaintext))
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[place // 8] ^= 1 << place % 8
    with pytest.raises(OpenFailed):
        KEYS.open(suite, b"ad", bytes(sealed))


@given(suites, st.binary(max_size=80))
def test_junk_raises_only_open_failed(suite: Suite, junk: bytes) -> None:
    with pytest.raises(OpenFailed):
        KEYS.open(suite, b"", junk)


@pytest.mark.parametrize("suite", Suite)
def test_other_associated_data_or_key_or_purpose_never_opens(suite: Suite) -> None:
    sealed = KEYS.seal(suite, b"ad", b"content")
    for keys, ad in (
        (KEYS, b"ae"),
        (SealingKeys(b"\10" * 32, "test"), b"ad"),
        (SealingKeys(b"\7" * 32, "other"), b"ad"),
    ):
        with pytest.raises(OpenFailed):
            keys.open(suite, ad, sealed)


@pytest.mark.parametrize("suite", Suite)
def test_nonce_differs_when_only_the_associated_data_does(suite: Suite) -> None:
    """`("ab", "c")` and `("a", "bc")` concatenate alike; the length prefix parts them."""
    assert KEYS.seal(suite, b"ab", b"c")[:24] != KEYS.seal(suite, b"a", b"bc")[:24]


def test_small_objects_open_only_with_their_kind_and_context() -> None:
    sealed = seal_small(KEYS, "emix/a/v1", b"ctx", b"secret")
    assert open_small(KEYS, "emix/a/v1", b"ctx", sealed) == b"secret"
    for kind, context in (("emix/b/v1", b"ctx"), ("emix/a/v1", b"ctz")):
        with pytest.raises(OpenFailed):
            open_small(KEYS, kind, context, sealed)


@given(st.binary(max_size=100))
def test_small_junk_raises_only_open_failed(junk: bytes) -> None:
    with pytest.raises(OpenFailed):
        open_small(KEYS, "emix/a/v1", b"", junk)
