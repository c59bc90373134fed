"""A2: each kind of error has its exit code, and each error a way out."""

from pki import EXIT_CODES, Kind, PkiError


def test_a2_exit_codes_are_the_product_s_own() -> None:
    assert {kind.value: code for kind, code in EXIT_CODES.items()} == {
        "failed": 1, "usage": 2, "configuration": 3, "refused": 5, "conflict": 6,
    }  # fmt: skip
    assert set(EXIT_CODES) == set(Kind)


def test_a2_an_error_reads_as_a_sentence_with_the_next_action() -> None:
    assert str(PkiError(Kind.FAILED, "the disk is full", "free some space")) == "the disk is full; free some space"
