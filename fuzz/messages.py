"""What devices and delegates send: PROXY headers, HTTP, XML, SOAP, calls and answers."""

from __future__ import annotations

import contextlib

import h11

from delegator.callbacks.answers import NotAnAnswer, credential_in
from delegator.device.answers import read_answer
from delegator.device.envelope import HttpAnswer
from delegator.device.reasons import Failure
from delegator.errors import DelegatorError, Kind
from delegator.wire import canonical, messages, soap, xml
from delegator.wire.http import LIMITS, HttpError, Request, RequestReader, Response, ResponseReader
from delegator.wire.messages import Service
from delegator.wire.proxy import HeaderReader, ProxyError
from delegator.wire.smtp import Reply, reply_in
from fuzz.target import Target, must
from pki.said import MOST, is_harmful

NAMESPACE = messages.OWN.namespace
_ASK = (f'<GetProvisioningCredential xmlns="{NAMESPACE}"><Device><ServiceTag>ABC1234</ServiceTag>'
        "<SerialNumber>SN-1</SerialNumber><MacAddress>00:11:22:33:44:55</MacAddress><Model>R 760</Model></Device>"
        "<Location><IPAddress>192.0.2.7</IPAddress><HostName>a.example</HostName></Location>"
        "<TransactionId>0123456789abcdef</TransactionId><CertificateRequest>AAAA</CertificateRequest>"
        "</GetProvisioningCredential>")
_CONFIRM = (f'<p:ConfirmProvisioning xmlns:p="{NAMESPACE}"><p:ClaimId>{"0" * 32}</p:ClaimId>'
            "<p:Result>Deployed</p:Result><p:Detail>a b</p:Detail></p:ConfirmProvisioning>")
_ANSWER = (f'<GetProvisioningCredentialResponse xmlns="{NAMESPACE}"><Credential><UserName>u</UserName>'
           "<Password>p&amp;</Password><NotAfter>2030-01-01T00:00:00Z</NotAfter></Credential><Delegate><URL>"
           f"https://d.example/</URL><TrustAnchor>x</TrustAnchor></Delegate><ClaimId>{'0' * 32}</ClaimId>"
           "</GetProvisioningCredentialResponse>")


def _enveloped(inner: str, version: soap.Version = soap.Version.V11, header: str = "") -> bytes:
    return (f'<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="{version.value}">{header}<s:Body>{inner}'
            "</s:Body></s:Envelope>").encode()


# --- HTTP ---------------------------------------------------------------------------------------------------------

Outcome = tuple[list[Request], int | None]


def _requests(pieces: list[bytes]) -> Outcome:
    reader, found = RequestReader(), []
    try:
        for piece in pieces:
            found += reader.feed(piece)
        reader.feed(b"")
    except HttpError as error:
        return found, error.status
    return found, None


def _answer(pieces: list[bytes]) -> Response | int | None:
    """As the client reads: the first answer is the answer."""
    reader = ResponseReader()
    try:
        for piece in pieces:
            if (found := reader.feed(piece)) is not None:
                return found
        return reader.eof()
    except HttpError as error:
        return error.status


def check_http(data: bytes) -> None:
    if not data:
        return
    cut, data = data[0], data[1:]
    pieces = [data[:cut], data[cut:2 * cut], data[2 * cut:]]
    whole, parts = _requests([data]), _requests(pieces)
    few = len(whole[0]) < LIMITS.ahead  # more than that in one read is refused, in several it is not
    must(whole == parts or not few or whole[1] == 429, "cut otherwise, the same bytes mean another thing")
    must(all(len(one.body) <= LIMITS.body and len(one.headers) <= LIMITS.headers for one in whole[0]), "beyond limits")
    if whole[0]:
        _agree_with_h11(data, whole[0][0])
    must(_answer([data]) == _answer(pieces), "cut otherwise, the same bytes are another answer")


def _agree_with_h11(data: bytes, ours: Request) -> None:
    other, body = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.head), b""
    other.receive_data(data.lstrip(b"\r\n"))
    try:
        must(isinstance(other.next_event(), h11.Request), "h11 sees no request")
        while isinstance(event := other.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError:
        return  # it is stricter in places, such as lone CR in chunk extensions: then nothing is smuggled past it
    must(isinstance(event, h11.EndOfMessage) and body == ours.body, "h11 sees another body")


# --- XML, SOAP, calls ---------------------------------------------------------------------------------------------


def _depth(element: xml.Element) -> int:
    return 1 + max(map(_depth, element.children), default=0)


def _count(element: xml.Element) -> int:
    return 1 + sum(map(_count, element.children))


def check_xml(data: bytes) -> None:
    try:
        root = xml.read(data).root
    except xml.NotXml:
        return
    must(_depth(root) <= xml.MAX_DEPTH and _count(root) <= xml.MAX_ELEMENTS, "beyond limits")
    try:
        written = xml.write(root)
    except xml.NotXml:
        raise AssertionError("it was read and cannot be written") from None
    with contextlib.suppress(xml.NotXml):  # written out, namespaces take more attributes than are read
        must(xml.read(written.encode()).root == root, "written and read again it is another tree")


def check_soap(data: bytes) -> None:
    try:
        found = soap.parse(data)
    except soap.SoapError as error:
        fault = soap.parse(soap.render_fault(error.version, error.fault)).fault
        must(fault == error.fault, "the fault is not read back as it was")
        must(soap.http_status(error.version, error.fault) in (400, 500), "a status that SOAP does not know")
        return
    must(f'"{found.version.value}"'.encode() in data or f"'{found.version.value}'".encode() in data or b"&" in data,
         "a version that nobody said")


def _read(data: bytes, service: Service) -> tuple[soap.Version, str, messages.Request] | None:
    try:
        found = soap.parse(data)
        return found.version, found.operation.name, messages.read(found.operation, service)
    except DelegatorError as error:
        must(error.kind is Kind.MALFORMED, "another error than MALFORMED")
        return None


def check_canonical(data: bytes) -> None:
    for service in Service:
        short = canonical.read(data, service)
        if short is not None:
            must((short[0], short[1].name, short[2]) == _read(data, service), "the short way reads another value")


def check_messages(data: bytes) -> None:
    for service in Service:
        found = _read(data, service)
        if found is not None:
            written = soap.render(found[0], messages.write(found[2]))
            must(_read(written, service) == found, "written and read again it is another value")


def check_proxy(data: bytes) -> None:
    outcomes: list[tuple[str | None, bytes] | str | None] = []
    for pieces in ([data], [data[n:n + 1] for n in range(len(data))]):
        reader, header = HeaderReader(), None
        try:
            for number, piece in enumerate(pieces):
                header = reader.feed(piece)
                if header is not None:
                    rest = header.rest + b"".join(pieces[number + 1:])
                    outcomes.append((header.source, rest))
                    break
            else:
                outcomes.append(None)
        except ProxyError:
            outcomes.append("refused")
    must(outcomes[0] == outcomes[1], "byte by byte it is another header")


def check_smtp(data: bytes) -> None:
    """What a relay says before TLS."""
    outcomes: list[Reply | str | None] = []
    for step in (len(data) or 1, 1):
        said, reply = b"", None
        try:
            for start in range(0, len(data), step):
                said += data[start:start + step]
                reply = reply_in(said)
                if reply is not None:
                    reply = Reply(reply.code, reply.lines, reply.rest + data[start + step:])
                    break
            outcomes.append(reply)
        except ValueError:
            outcomes.append("refused")
    must(outcomes[0] == outcomes[1], "byte by byte it is another reply")


# --- answers ------------------------------------------------------------------------------------------------------


def check_program(data: bytes) -> None:
    """What a customer's program prints."""
    try:
        found = credential_in(data, "ABC1234")
    except NotAnAnswer as error:
        must(str(error).isprintable() and len(str(error)) <= MOST, "a refusal that does not fit into a line")
        return
    must(not is_harmful(found.user_name + found.password.reveal()), "control characters")


def check_device(data: bytes) -> None:
    """What the device client is told: an answer it can use, or a failure with a reason."""
    for status in (200, 500):
        with contextlib.suppress(Failure):
            read_answer(HttpAnswer(status, None, data))


# --- the table ----------------------------------------------------------------------------------------------------

_MARKUP = tuple(word.encode() for word in (
    "<", ">", "</", "/>", "&amp;", "&#13;", "&e;", "<!--", "-->", "<?x?>", "<![CDATA[", "]]>", "<!DOCTYPE s>", "xmlns=",
    "xmlns:s=", '"', "'", " ", "\n", "\t", "\xa0", "s:Envelope", "s:Body", "s:Header", "s:Fault", "s:mustUnderstand",
    NAMESPACE, soap.Version.V11.value, soap.Version.V12.value, "Device", "ServiceTag", "ABC1234", "MacAddress",
    "TransactionId", "Result", "Deployed", "ClaimId", "encoding", "UTF-16", "xsi:type", "xml:space"))
_CALLS = (_enveloped(_ASK), _enveloped(_ASK, soap.Version.V12), _enveloped(_CONFIRM),
          _enveloped("<s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring></s:Fault>"),
          _enveloped(_CONFIRM, header='<s:Header><x:S xmlns:x="urn:x" s:mustUnderstand="1"/></s:Header>'))
_HEADS = (b"POST / HTTP/1.1\r\nHost: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n",
          b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"GET /?wsdl HTTP/1.0\r\n", b"HTTP/1.1 200 OK\r\n",
          b"Connection: close\r\n",
          b"Expect: 100-continue\r\n", b": ", b"\n", b"\r", b"\0", b" ", b";", b"+", b"HTTP/1.1 100 Continue\r\n\r\n")
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"

TARGETS = (
    Target("http", "The same requests or refusal however the bytes are cut, within the limits, and h11 sees no other.",
           check_http, (b"\x05" + _HEADS[0] + _HEADS[1] + b"\r\nabc",
                        b"\x40" + _HEADS[0] + _HEADS[2] + b"\r\n" + _HEADS[5] + _HEADS[6],
                        b"\x09HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), _HEADS),
    Target("xml", "A tree within the limits that survives being written, or NotXml.", check_xml, _CALLS, _MARKUP),
    Target("soap", "An envelope, or a fault that is read back as itself.", check_soap, _CALLS, _MARKUP),
    Target("canonical", "What the short way reads, the careful readers read as the very same value.", check_canonical,
           _CALLS, _MARKUP),
    Target("messages", "A value that survives being written, or MALFORMED.", check_messages, _CALLS, _MARKUP),
    Target("proxy", "The same header and rest, whole and byte by byte, or ProxyError.", check_proxy,
           (b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 4433\r\nx", b"PROXY UNKNOWN\r\n",
            _V2 + b"\x21\x11\x00\x0c" + bytes(range(12)) + b"x", _V2 + b"\x20\x00\x00\x00"),
           (_V2, b"PROXY ", b"TCP6 ", b"::1 ", b"UNKNOWN", b"\r\n", b"\x21\x21\x00\x24", b"0", b"65536")),
    Target("smtp", "The same reply and rest, whole and byte by byte, or ValueError.", check_smtp,
           (b"250-relay.example\r\n250-SIZE 1000\r\n250 STARTTLS\r\n", b"220 go ahead\r\nx", b"554\n"),
           (b"250-", b"250 ", b"220", b"\r\n", b"\n", b"\r", b"-", b"STARTTLS", b"\xff")),
    Target("program", "A credential for the tag that was asked for, or NotAnAnswer in one printable line.",
           check_program, (b'{"user_name": "u", "password": "p", "service_tag": "ABC1234"}',
                           b"<Credential><UserName>u</UserName><Password>p</Password></Credential>"),
           (*_MARKUP[:12], b"UserName", b"Password", b"NotAfter", b"Credential", b'"not_after"', b"\\ud800",
            b"\\u0000")),
    Target("device", "An answer the device can use, or a Failure with its reason.", check_device,
           (_enveloped(_ANSWER), _enveloped(
               "<s:Fault><faultcode>s:Server</faultcode><faultstring>x</faultstring><detail>"
               f'<d:Fault xmlns:d="{NAMESPACE}">'
               "<d:Code>TryLater</d:Code><d:RetryAfter>30</d:RetryAfter></d:Fault></detail></s:Fault>")),
           (*_MARKUP, b"RetryAfter", b"AlternateDelegator", b"https://a:1/")),
)
