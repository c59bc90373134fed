"""What a device gets once it showed its credential: `<TAG>.xml` as it stands, or `default.xml` filled in for it.

In default.xml `{tag}`, `{serial}` and `{model}` are replaced, escaped for text and attribute values alike. Files are
read at each request, so that a change needs no restart.
The invariant: what is served is plain, well-formed XML with our root, within the bounds that devices have; nothing of
a broken file leaves.
Must not live here: who may have it (access, server).
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import escape

from delegator.device.document import Document
from delegator.errors import DelegatorError, Kind
from delegator.model import SERVICE_TAG, Device
from pki.disk import read_start
from pki.text import MARK, NotText, decoded

LARGEST = 16 * 1024 * 1024
"""The device reads no more than this."""
_PIECE = 1024
"""Bytes that are read at a time: the smaller the pieces in which a document comes, the less markup is let through in
one, and how a network will cut it nobody knows."""
TEMPLATE = "default.xml"
BUILT_IN = """<?xml version="1.0" encoding="utf-8"?>
<Provisioning xmlns="urn:delegator:provisioning:1">
  <ServiceTag>{tag}</ServiceTag>
</Provisioning>
"""
"""Served where there is no default.xml: a device learns that it has arrived, and nothing else."""
_SAMPLE = Device("SAMPLE1", "SN-1", (), "Model 1")


def _checked(body: bytes, path: Path | str) -> bytes:
    """The document again. Raises DelegatorError (CONFIGURATION) where devices would not take it: it is read as they
    read it, by the same code, so that nothing is served that they refuse."""
    reader = Document()
    try:
        for at in range(0, len(body), _PIECE):
            reader.feed(body[at:at + _PIECE])
        reader.close()
    except ValueError as error:
        raise _broken(path, f"devices refuse it: {error}") from None
    return body


def _broken(path: Path | str, why: str) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"provisioning data {path}: {why}",
                          hint="see examples/delegate/default.xml for the form")


def _read(path: Path) -> bytes | None:
    """The file's content without a byte-order mark, which is no device's business; None where there is no such file.
    """
    try:
        body = read_start(path, LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _broken(path, error.strerror or str(error)) from None
    if len(body) > LARGEST:
        raise _broken(path, f"larger than {LARGEST} bytes")
    return body.removeprefix(MARK)


_MARK = re.compile(r"\{(?:tag|serial|model)\}")
_QUOTES = {'"': "&quot;", "'": "&apos;"}


def filled(template: str, device: Device) -> str:
    """Plain replacement, not str.format: the template is a customer's text and may hold any other brace."""
    facts = {"{tag}": device.service_tag, "{serial}": device.serial_number, "{model}": device.model}
    return _MARK.sub(lambda mark: escape(facts[mark.group()] or "", _QUOTES), template)


def _from_template(folder: Path, device: Device) -> bytes:
    path: Path | str = folder / TEMPLATE
    body = _read(folder / TEMPLATE)
    if body is None:
        body, path = BUILT_IN.encode(), "built in"
    try:
        return _checked(filled(decoded(body), device).encode(), path)
    except NotText as error:
        raise _broken(path, f"a template must be UTF-8, and it {error.why}") from None


def document(folder: Path, device: Device) -> bytes:
    """The provisioning data of a device. Raises DelegatorError (CONFIGURATION) for a broken file."""
    assert SERVICE_TAG.fullmatch(device.service_tag)  # so it is a file name and nothing more
    path = folder / f"{device.service_tag}.xml"
    body = _read(path)
    return _from_template(folder, device) if body is None else _checked(body, path)


def check(folder: Path) -> None:
    """At the start: the folder can be read and its template makes a document. Raises DelegatorError
    (CONFIGURATION); for a folder that is not there too, as every device would be given next to nothing, and nobody
    would hear of it."""
    if not folder.exists():
        raise DelegatorError(Kind.CONFIGURATION, f"provisioning data {folder}: there is no such folder",
                             hint=f"mkdir -p {folder}; then put default.xml into it, or a <TAG>.xml for each device: "
                                  "else devices are told their tag alone")
    if not folder.is_dir():
        raise _broken(folder, "not a folder")
    _from_template(folder, _SAMPLE)
