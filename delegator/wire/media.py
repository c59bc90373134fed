"""What a SOAP request may say that its body is: media type and charset. Decided on the head, before any byte of XML.

Taken is what SOAP stacks send, in any case and quoting: `text/xml` (SOAP 1.1 section 6), `application/soap+xml`
(RFC 3902), `application/xml` and any other `+xml` (RFC 7303), and no type at all; so is what curl and wget say of any
file unless told otherwise, since a device that was made with them would stop for good. The charset is UTF-8, its subset
US-ASCII, or not said. Whatever else is said of the body is believed: then it is no request of ours, however much its
bytes look like one.
Must not live here: what the XML itself declares (wire.xml), statuses (wire.http).
"""

from __future__ import annotations

import functools
import re

SHOWN = 80
LONGEST = 1000
_XML = re.compile(r"(?:text|application)/xml|application/x-www-form-urlencoded"
                  r"|[a-z0-9!#$&^_.-]+/[a-z0-9!#$&^_.-]+\+xml")
_PARAMETER = re.compile(r';[ \t]*([^=;" \t]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;]*)')
_CHARSETS = frozenset(("utf-8", "utf8", "us-ascii"))
_CODINGS = frozenset(("", "identity"))


def foreign(content_type: str, coding: str = "") -> str:
    """Why a body that is said to be this is not read; "" where it is. `coding` is what Content-Encoding says."""
    if len(content_type) + len(coding) > LONGEST:
        return f"what it says of its body is longer than {LONGEST} characters"
    return _foreign(content_type, coding)


@functools.lru_cache(maxsize=256)
def _foreign(content_type: str, coding: str) -> str:
    kind, _, rest = content_type.partition(";")
    kind = kind.strip(" \t").lower()
    if kind and _XML.fullmatch(kind) is None:
        return f"its media type is {kind[:SHOWN]!a}, where XML is wanted"
    for name, value in _PARAMETER.findall(f";{rest}"):
        charset = value.strip('" \t').lower()
        if name.lower() == "charset" and charset not in _CHARSETS:
            return f"its charset is {charset[:SHOWN]!a}, where UTF-8 is wanted"
    if coding.strip(" \t").lower() not in _CODINGS:
        return f"its content coding is {coding[:SHOWN]!a}, where none is wanted"
    return ""
