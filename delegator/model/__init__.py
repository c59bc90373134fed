"""The values the delegator speaks in: who asks, what is registered, what is claimed, what is answered.

Everything here is frozen and knows neither bytes nor sockets nor SQL; a value that exists is valid.
Must not live here: decisions (routing, policy), element names (wire.messages), columns (store).
"""

from delegator.model.claimed import Claim, ClaimState
from delegator.model.hours import Opening
from delegator.model.identified import Identity, IdentityKind, PeerCertificate
from delegator.model.messages import (
    AddressChange,
    Answer,
    Confirmation,
    Credential,
    CredentialRequest,
    DelegateAddress,
    DelegateRequest,
    Deployment,
    Device,
    Location,
    Result,
)
from delegator.model.notified import (
    Message,
    Notice,
    Notification,
    NotificationKind,
    NotificationState,
    Target,
    Telling,
)
from delegator.model.placeholders import is_placeholder_mac, is_placeholder_serial
from delegator.model.places import HOST_NAME
from delegator.model.registered import (
    Customer,
    Delegate,
    IdentityRule,
    Order,
    Policy,
    Registration,
    Rule,
)
from delegator.model.secret import Secret
from delegator.model.syntax import (
    CLAIM_ID,
    MAIL_ADDRESS,
    MODEL,
    NAME,
    SERIAL_NUMBER,
    SERVICE_TAG,
    TRANSACTION_ID,
    must_match,
    normal_hint,
    normal_mac,
)
from delegator.model.ways import (
    WAYS,
    Callback,
    CallbackWay,
    HostedCallback,
    LocalCallback,
    SoapCallback,
    SshCallback,
)

__all__ = [
    "CLAIM_ID",
    "HOST_NAME",
    "MAIL_ADDRESS",
    "MODEL",
    "NAME",
    "SERIAL_NUMBER",
    "SERVICE_TAG",
    "TRANSACTION_ID",
    "WAYS",
    "AddressChange",
    "Answer",
    "Callback",
    "CallbackWay",
    "Claim",
    "ClaimState",
    "Confirmation",
    "Credential",
    "CredentialRequest",
    "Customer",
    "Delegate",
    "DelegateAddress",
    "DelegateRequest",
    "Deployment",
    "Device",
    "HostedCallback",
    "Identity",
    "IdentityKind",
    "IdentityRule",
    "LocalCallback",
    "Location",
    "Message",
    "Notice",
    "Notification",
    "NotificationKind",
    "NotificationState",
    "Opening",
    "Order",
    "PeerCertificate",
    "Policy",
    "Registration",
    "Result",
    "Rule",
    "Secret",
    "SoapCallback",
    "SshCallback",
    "Target",
    "Telling",
    "is_placeholder_mac",
    "is_placeholder_serial",
    "must_match",
    "normal_hint",
    "normal_mac",
]
