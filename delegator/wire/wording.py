"""What each operation and element means, in the words that people and their generators read in the served WSDL.

The invariant: every service, operation, record and part of wire.messages has one sentence or two here, and nothing
else has; a test compares the two. Stubs carry these words as comments, so they say what a page would have to say.
Must not live here: names that decide anything (wire.messages), how the WSDL is built (wire.wsdl).
"""

from __future__ import annotations

SERVICES = {
    "Delegator": "What a device calls at its maker's delegator, over TLS with the device's certificate. A refusal is a "
                 "fault with one Fault element in its detail: decide by the Code in it.",
    "Delegate": "What the maker's delegator calls at an owner's delegate, over TLS with the delegator's certificate. "
                "Check the DNS name in it: every device has a certificate of the same authority.",
}

OPERATIONS = {
    "GetProvisioningCredential": "Ask for the credential of the device whose certificate is shown. Ask again with the "
                                 "same TransactionId after any failure: the answer is the same.",
    "ConfirmProvisioning": "Tell how provisioning ended: Deployed ends the claim, Failed keeps it open. Idempotent.",
    "NotifyAddressChange": "Note a new address of a device that has a certificate of its own.",
    "RequestCredential": "Give a device its temporary credential. The same ClaimId is always given the same one.",
    "NotifyDeployed": "Hear how provisioning of a claim ended. May come more than once.",
}

ELEMENTS = {
    "Device": "Who the device says it is. The ServiceTag is proven by the certificate, all else is a hint.",
    "Device/ServiceTag": "The device's service tag; the common name of a certificate of its own.",
    "Device/SerialNumber": "A hint for finding the owner, never proof.",
    "Device/MacAddress": "A hint for finding the owner: 00:1A:2B:3C:4D:5E, with dashes, or without either.",
    "Device/Model": "A hint for finding the owner, never proof.",
    "Location": "Where the device says it is. Hints, never proof.",
    "Location/IPAddress": "IPv4 or IPv6.",
    "Location/HostName": "The name the device goes by.",
    "Location/Domain": "The domain it is in.",
    "Credential": "A temporary account, for one claim.",
    "Credential/UserName": "1 to 255 characters.",
    "Credential/Password": "1 to 1024 characters, every blank counts. A secret.",
    "Credential/NotAfter": "When it ends, with a time zone. Absent: it has no end.",
    "Delegate": "The owner's server: where the device goes next.",
    "Delegate/URL": "Fetched by GET over HTTPS, with the credential by HTTP Basic, without a client certificate.",
    "Delegate/TrustAnchor": "PEM. The authorities to believe there, and none but these.",
    "Fault": "What stands in a fault's detail. Its type is ProvisioningFault, so that generated classes are not named "
             "like the Fault of SOAP itself.",
    "Fault/Code": "Decide by this, not by the sentence and not by the HTTP status.",
    "Fault/RetryAfter": "Seconds. Do not ask before they are over; then with the same TransactionId.",
    "Fault/AlternateDelegator": "HOST[:PORT] of a delegator that may know the device. Ask them in order.",
    "GetProvisioningCredential": OPERATIONS["GetProvisioningCredential"],
    "GetProvisioningCredential/Device": "The device that asks.",
    "GetProvisioningCredential/Location": "Where it says it is.",
    "GetProvisioningCredential/TransactionId": "Random, 16 to 128 characters, kept on disk before the first try and "
                                               "the same until confirmed. With a shared certificate it is a secret.",
    "GetProvisioningCredential/CertificateRequest": "PKCS#10 (DER), with a shared certificate: the key to get a "
                                                    "certificate of its own for.",
    "GetProvisioningCredentialResponse": "The credential, and whom to trust from now on.",
    "GetProvisioningCredentialResponse/Credential": "The device's account, and its proof at the owner's server.",
    "GetProvisioningCredentialResponse/Delegate": "Absent where the owner has no server: nothing to fetch.",
    "GetProvisioningCredentialResponse/ClaimId": "Names this claim in ConfirmProvisioning.",
    "GetProvisioningCredentialResponse/HandshakeCertificate": "PEM. The device's own certificate, where one was asked "
                                                              "for. Check that it is for its key and tag.",
    "GetProvisioningCredentialResponse/AlternateDelegator": "HOST[:PORT] of others to ask when this one is away.",
    "ConfirmProvisioning": OPERATIONS["ConfirmProvisioning"],
    "ConfirmProvisioning/ClaimId": "The one that was answered.",
    "ConfirmProvisioning/Result": "Deployed, or Failed.",
    "ConfirmProvisioning/Detail": "For people: what failed. No secret.",
    "ConfirmProvisioning/TransactionId": "Needed with a shared certificate: the one that was asked with.",
    "ConfirmProvisioningResponse": "Heard.",
    "NotifyAddressChange": OPERATIONS["NotifyAddressChange"],
    "NotifyAddressChange/Device": "The device that has a new address.",
    "NotifyAddressChange/OldAddress": "Where it was.",
    "NotifyAddressChange/NewAddress": "Where it is.",
    "NotifyAddressChangeResponse": "Heard.",
    "RequestCredential": OPERATIONS["RequestCredential"],
    "RequestCredential/ClaimId": "32 hexadecimal digits. Keep the answer under it.",
    "RequestCredential/Device": "The device that asks. Its tag is proven.",
    "RequestCredential/Location": "Where it says it is.",
    "RequestCredentialResponse": "The credential of this claim.",
    "RequestCredentialResponse/Credential": "What the device is given, and shows here when it fetches its settings.",
    "NotifyDeployed": OPERATIONS["NotifyDeployed"],
    "NotifyDeployed/ClaimId": "The claim that ended.",
    "NotifyDeployed/Result": "Deployed, or Failed.",
    "NotifyDeployed/Detail": "For people: what failed, in the device's words.",
    "NotifyDeployedResponse": "Heard.",
}
"""By the record's name, and by record/part."""

CODES = {
    "MalformedRequest": "Never understood, however often it is asked: stop.",
    "IdentityRejected": "The certificate does not belong to this service tag, or must be the device's own.",
    "NotEntitled": "Nothing for this device now. Its owner may not have registered it yet: ask again later.",
    "TryLater": "Ask again after RetryAfter seconds, with the same TransactionId.",
    "Unavailable": "The service's own fault: ask again.",
    "MustUnderstand": "SOAP's own: a header that must be understood is not.",
    "VersionMismatch": "SOAP's own: the envelope is of no version that is spoken.",
}
"""Every fault code that is ever sent. Take one that you do not know for Unavailable."""
