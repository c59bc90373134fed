"""A2: a name is safe as a common name and as a file name, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import PkiError, naming

BAD_TAGS = ["", "ABCD", "A" * 21, "abc1234", "ABC 234", "ABC1234\n", " ABC1234", "ABC1234\x00", "../ABC12", "АВС1234",
            "ABC-1234", "١٢٣٤٥٦", "ABC1234*", "shared-device"]  # fmt: skip


@pytest.mark.parametrize("tag", ["ABCDE", "ABC1234", "0" * 20])
def test_a2_service_tags_pass_byte_for_byte(tag: str) -> None:
    assert naming.service_tag(tag) == tag


@pytest.mark.parametrize("tag", BAD_TAGS)
def test_a2_anything_else_is_no_service_tag(tag: str) -> None:
    with pytest.raises(PkiError, match="not a valid service tag"):
        naming.service_tag(tag)


@given(st.from_regex(naming.BATCH, fullmatch=True))
def test_a2_a_shared_name_never_reads_as_a_service_tag(batch: str) -> None:
    assert not naming.SERVICE_TAG.fullmatch(naming.shared_name(f"shared-device-{batch}"))


@pytest.mark.parametrize(
    "name", ["shared-device-", "shared-device-A", "shared-devic", "shared-device-" + "a" * 33, "x"]
)
def test_a2_other_shared_names_are_refused(name: str) -> None:
    with pytest.raises(PkiError):
        naming.shared_name(name)


@pytest.mark.parametrize(
    ("given_name", "canonical"),
    [("Delegator.Example.COM", "delegator.example.com"), ("localhost", "localhost"), ("127.0.0.1", "127.0.0.1"),
     ("2001:DB8:0::1", "2001:db8::1"), ("xn--mller-kva.example", "xn--mller-kva.example")],
)  # fmt: skip
def test_a2_hosts_have_one_spelling(given_name: str, canonical: str) -> None:
    assert naming.host(given_name) == canonical


@pytest.mark.parametrize(
    "name",
    ["", "*.example.com", "a..b", "-a.example", "a-.example", "müller.example", "a_b.example", "10.1", "0x7f000001",
     "1.2.3.4.5", "a/b", "..", ".hidden", "example.com.", "a" * 64 + ".example", "a." * 127 + "aa", "a\nb", "127.1"],
)  # fmt: skip
def test_a2_ambiguous_or_unsafe_hosts_are_refused(name: str) -> None:
    with pytest.raises(PkiError, match="not a valid host name"):
        naming.host(name)


@pytest.mark.parametrize("name", ["a@b@c.example", "@example.com", "a b@example.com", "../x@example.com", "a@",
                                  "a.@b.c", "a..b@c.example", "a\r\nBcc:x@example.com"])  # fmt: skip
def test_a2_mail_addresses_that_could_carry_more_are_refused(name: str) -> None:
    with pytest.raises(PkiError):
        naming.mailbox(name)


def test_a2_mail_domain_is_lower_cased_and_local_part_is_not() -> None:
    assert naming.mailbox("Ops@Example.COM") == "Ops@example.com"


@given(st.text(max_size=80))
def test_a2_whatever_passes_stays_inside_its_folder(text: str) -> None:
    """A2: no accepted name can point out of the folder it is stored in."""
    for accept in (naming.service_tag, naming.shared_name, naming.host, naming.mailbox):
        try:
            stem = naming.file_stem(accept(text))
        except PkiError:
            continue
        assert not set(stem) & set("/\\\0\n ")
        assert not stem.startswith(".")


@given(st.text(max_size=80))
def test_a2_a_refusal_shows_the_name_escaped(text: str) -> None:
    with pytest.raises(PkiError) as caught:
        naming.service_tag(text + "!")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
