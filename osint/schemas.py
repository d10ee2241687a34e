"""What an entity is called elsewhere: FollowTheMoney 3 (schema, property), STIX 2.1 (object type), MISP (attribute type)."""

from dataclasses import dataclass

from osint.models import Entity


@dataclass(frozen=True)
class Schema:
    """`ftm` and `ftm_property`: schema and the property that holds the value. Empty: not exported there."""

    ftm: str
    ftm_property: str
    stix: str
    misp: str
    misp_category: str = "Network activity"


T = Entity.Type
SCHEMAS: dict[str, Schema] = {
    T.PERSON: Schema("Person", "name", "identity", "full-name", "Person"),
    T.ORGANISATION: Schema("Organization", "name", "identity", "text", "Other"),
    T.PLACE: Schema("Address", "full", "location", "text", "Other"),
    T.DATE: Schema("", "", "", "datetime", "Other"),
    T.EMAIL: Schema("UserAccount", "email", "email-addr", "email", "Network activity"),
    T.PHONE: Schema("UserAccount", "number", "user-account", "phone-number", "Person"),
    T.URL: Schema("Page", "sourceUrl", "url", "url"),
    T.DOMAIN: Schema("Page", "title", "domain-name", "domain"),
    T.IPV4: Schema("Page", "title", "ipv4-addr", "ip-dst"),
    T.IPV6: Schema("Page", "title", "ipv6-addr", "ip-dst"),
    T.MD5: Schema("Document", "title", "file", "md5", "Payload delivery"),
    T.SHA1: Schema("Document", "contentHash", "file", "sha1", "Payload delivery"),
    T.SHA256: Schema("Document", "title", "file", "sha256", "Payload delivery"),
    T.CVE: Schema("Thing", "name", "vulnerability", "vulnerability", "External analysis"),
    T.BTC: Schema("CryptoWallet", "publicKey", "user-account", "btc", "Financial fraud"),
    T.ETH: Schema("CryptoWallet", "publicKey", "user-account", "text", "Financial fraud"),
    T.IBAN: Schema("BankAccount", "iban", "user-account", "iban", "Financial fraud"),
    T.HANDLE: Schema("UserAccount", "username", "user-account", "text", "Other"),
    T.COORDINATES: Schema("Address", "full", "location", "text", "Other"),
    T.RECORD: Schema("LegalEntity", "name", "identity", "text", "Other"),
}
