#!/bin/sh
# Asks a delegator for a provisioning credential, as a device would, with curl alone. Start your own from here.
# What it needs: a POSIX shell, curl, and python3 (standard library) to read the answer.
# The invariants: the credential goes to standard output and nowhere else, words go to standard error, and no secret
# stands on any command line, where every user of this machine could read it.
# Must not live here: retries and confirmation; docs/integrators.md tells the rules.
set -eu
umask 077

usage() {
    cat <<'TEXT'
usage: soap-call.sh --host HOST[:PORT] --cert FILE --key FILE --ca FILE --tag TAG [--transaction-id ID] [--json]

  --host            the delegator; port 4433 unless said
  --cert, --key     the device's certificate and its private key (PEM)
  --ca              the factory CA's certificate (PEM): the only authority that is believed
  --tag             the device's service tag
  --transaction-id  the same at each retry of one device; a new random one unless said. With a shared certificate it
                    is a secret: put it into the environment as TRANSACTION_ID instead
  --json            one JSON object on standard output, the trust anchor included

exit codes: 0 credential, 1 the delegator's own fault or no answer of a delegator, 2 usage, 4 unreachable or TLS
refused, 5 refused (MalformedRequest, IdentityRejected, NotEntitled), 75 TryLater
TEXT
}

wrong() {
    echo "soap-call.sh: $1 (--help tells more)" >&2
    exit 2
}

host='' cert='' key='' ca='' tag='' as_json='' transaction=${TRANSACTION_ID:-}
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --json) as_json=yes; shift; continue ;;
        --host | --cert | --key | --ca | --tag | --transaction-id) ;;
        *) wrong "unknown word $1" ;;
    esac
    [ $# -ge 2 ] || wrong "$1 needs a value"
    case $1 in
        --host) host=$2 ;;
        --cert) cert=$2 ;;
        --key) key=$2 ;;
        --ca) ca=$2 ;;
        --tag) tag=$2 ;;
        --transaction-id) transaction=$2 ;;
    esac
    shift 2
done
[ -n "$host" ] && [ -n "$tag" ] || wrong "--host and --tag are needed"
for file in "$cert" "$key" "$ca"; do
    [ -n "$file" ] || wrong "--cert, --key and --ca are needed"
    [ -r "$file" ] || wrong "cannot read $file"
done
for program in curl python3; do
    command -v "$program" >/dev/null || wrong "$program is not installed"
done
case $host in
    \[*\] | *[!:]) case ${host##*\]} in *:*) ;; *) host=$host:4433 ;; esac ;;
    *) wrong "--host is HOST or HOST:PORT" ;;
esac
[ -n "$transaction" ] || transaction=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

# --- ask ---------------------------------------------------------------------------------------------------------

escaped() { # a value may hold & and <
    printf '%s' "$1" | sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'
}

question() {
    cat <<XML
<?xml version="1.0" encoding="utf-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/">
  <soap:Body>
    <GetProvisioningCredential xmlns="urn:delegator:provisioning:1">
      <Device><ServiceTag>$(escaped "$tag")</ServiceTag></Device>
      <TransactionId>$(escaped "$transaction")</TransactionId>
    </GetProvisioningCredential>
  </soap:Body>
</soap:Envelope>
XML
}

# --pass '': an encrypted key is an error; curl would ask on the terminal, which a script may not have.
# -q: no ~/.curlrc, which could switch checks off. No proxy: what the device shows is for the delegator alone.
code=0
answer=$(question | curl -q --silent --show-error --globoff --noproxy '*' --proto '=https' --tlsv1.2 \
    --connect-timeout 10 --max-time 60 --cacert "$ca" --cert "$cert" --key "$key" --pass '' \
    --header 'Content-Type: text/xml; charset=utf-8' \
    --header 'SOAPAction: "urn:delegator:provisioning:1#GetProvisioningCredential"' \
    --write-out '\n%{http_code}' --data-binary @- "https://$host/") || code=$?

# --- tell --------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2016 # python, not shell
READ='
import json, os, sys
from xml.etree import ElementTree

NAMES = {"user_name": "UserName", "password": "Password", "not_after": "NotAfter", "claim_id": "ClaimId",
         "delegate_url": "URL", "trust_anchor": "TrustAnchor"}
EXIT = {"MalformedRequest": 5, "IdentityRejected": 5, "NotEntitled": 5, "TryLater": 75}
transaction, as_json = os.environ["TRANSACTION_ID"], bool(os.environ["AS_JSON"])

def text(root, name):
    found = root.find(".//{urn:delegator:provisioning:1}" + name)
    return None if found is None else found.text or ""

def tell(facts, code):
    facts["transaction_id"] = transaction
    if as_json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            if value not in (None, []) and name != "trust_anchor":
                print(name + ": " + (" ".join(value) if isinstance(value, list) else str(value)))
    sys.exit(code)

def alternates(root):
    return [one.text for one in root.iter("{urn:delegator:provisioning:1}AlternateDelegator")]

def refuse(fault, message, retry_after=None, code=1, others=()):
    later = "" if retry_after is None else "; ask again in " + str(retry_after) + " s with the same transaction id"
    print("soap-call.sh:", *([fault + ":"] if fault else []), message + later, file=sys.stderr)
    tell({"fault": fault, "retry_after": retry_after, "alternate_delegators": list(others)}, code)

if os.environ["CURL_CODE"] != "0":
    refuse(None, "no answer from " + os.environ["HOST"] + ", see above", code=4)
sys.stdout.reconfigure(encoding="utf-8")
body, _, status = sys.stdin.buffer.read().rpartition(b"\n")
try:
    root = ElementTree.fromstring(body)
except ElementTree.ParseError:
    refuse(None, "HTTP " + status.decode() + ", and no SOAP answer: is this a delegator?")
fault = text(root, "Code")
if fault is not None:
    after = text(root, "RetryAfter")
    refuse(fault, root.findtext(".//faultstring") or "", after and int(after), EXIT.get(fault, 1), alternates(root))
if text(root, "Password") is None:
    refuse(None, "HTTP " + status.decode() + ", and no credential in the answer: is this a delegator?")
facts = {name: text(root, element) for name, element in NAMES.items()}
tell({**facts, "alternate_delegators": alternates(root)}, 0)
'
printf '%s' "$answer" |
    TRANSACTION_ID=$transaction AS_JSON=$as_json CURL_CODE=$code HOST=$host python3 -I -c "$READ"
