"""What one end of a connection shows of itself: a pair of files, read before it is used.

OpenSSL never opens a file of ours: it would ask on the terminal for the pass phrase of an encrypted key, and wait there
for ever where nobody is.
The invariants: whatever is not in order is a DelegatorError (CONFIGURATION) that names the file and the cause; a key
that others can read is not used.
Must not live here: contexts (tls), when files are read (serving.parts).
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL, crypto

from delegator.errors import DelegatorError, Kind
from delegator.secrecy import is_private
from pki import PkiError
from pki.pair import Pair, locked, read_pair

_lib = Binding.lib
_NAME = "name a certificate and its key, two files in PEM"


def presented(chain_file: Path, key_file: Path, hint: str = _NAME) -> Pair:
    """Read both; `hint` is for who has none. Raises DelegatorError (CONFIGURATION)."""
    try:
        private = is_private(key_file)
    except OSError as error:
        said = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise DelegatorError(Kind.CONFIGURATION, f"{key_file}: {said}", hint=hint) from None
    if not private:
        raise DelegatorError(Kind.CONFIGURATION, f"{key_file} can be read by others", hint=f"chmod 600 {key_file}")
    try:
        pair = read_pair(chain_file, key_file, hint)
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, error.detail, hint=error.hint) from None
    try:
        show(_strict(), pair)
    except DelegatorError as error:
        raise DelegatorError(error.kind, f"{chain_file} and {key_file}: {error.detail}", hint=hint) from None
    return pair


def _strict() -> SSL.Context:
    """As much as ours ask for: what a pair lacks is to show when it is read."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=2")
    return context


def show(context: SSL.Context, pair: Pair) -> None:
    """Have a context present a pair. The chain holds the issuer too: else OpenSSL rebuilds it at each handshake (13 %
    more CPU, measured). Raises DelegatorError (CONFIGURATION)."""
    try:
        context.use_certificate(pair.leaf)
        for one in pair.chain[1:]:
            context.add_extra_chain_cert(one)
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, pair.key_pem, _nobody_to_ask)
        if not _lib.SSL_CTX_use_PrivateKey(context._context, key._pkey):  # not by an object that forgets RSA-PSS
            SSL._raise_current_error()
        context.check_privatekey()
    except (SSL.Error, crypto.Error) as error:
        why = openssl_words(error)
        raise DelegatorError(Kind.CONFIGURATION, f"certificate and key cannot be used by OpenSSL: {why}",
                             hint="make both anew, with a key of EC P-256 or RSA-2048") from None


def _nobody_to_ask(*_: object) -> bytes:
    """The key was read without a pass phrase before; should OpenSSL see one all the same, it is not asked for."""
    raise DelegatorError(Kind.CONFIGURATION, locked("the key").detail)


def openssl_words(error: Exception) -> str:
    """OpenSSL's last word on an error."""
    stack = error.args[0] if error.args else ()
    if isinstance(stack, (list, tuple)) and stack:
        return str(stack[-1][-1])
    return str(error.args[-1] if error.args else error)
