"""Indicators in text: addresses, numbers and hashes that name something exactly; also in defanged form.

Defanged forms, such as hxxps://example[.]org or name(at)example[.]org, are read as what they stand for; offsets are
those of the text as it stands. What has a checksum counts only if that holds: IBAN (ISO 13616, by python-stdnum), Bitcoin
(base58check and bech32, by python-stdnum), Ethereum (EIP-55). Phone numbers are judged by Google's libphonenumber,
domains by the public suffix list as bundled with tldextract.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

import phonenumbers
import tldextract
from Crypto.Hash import keccak
from stdnum import bitcoin, iban
from stdnum.exceptions import ValidationError

ENGINE = "rules-1"
URL_CHARS_MAX = 2000
PHONE_CHARS_MAX = 40

# Suffixes that are not in the public list: of hidden services (RFC 7686), and for documentation (RFC 2606).
HIDDEN, RESERVED = {"onion", "i2p"}, {"example", "test", "invalid"}
# Suffixes that are more often the end of a file's name, or of an expression in code.
FILES_ONLY = {"zip", "mov", "py", "sh", "md", "rs", "pl", "ps", "so", "java"}
IN_CODE = {"name", "total", "map", "data", "next", "call", "new", "open", "show", "date", "events", "id", "run"}
# Suffixes that are words, so that two sentences without a space between them look like a domain.
WORDS = {"app", "ai", "in", "is", "it", "me", "my", "no", "do", "be", "at"}
DOT = r"(?:\.|\s?\[\s?\.\s?\]|\s?\(\s?\.\s?\)|\s?\{\s?\.\s?\}|\s?\[\s?dot\s?\]\s?|\s?\(\s?dot\s?\)\s?|\s?\{\s?dot\s?\}\s?|\\\.|\[\.|\.\])"
AT = r"(?:@|\s?\[\s?@\s?\]\s?|\s?\(\s?@\s?\)\s?|\s?\[\s?at\s?\]\s?|\s?\(\s?at\s?\)\s?|\s?\{\s?at\s?\}\s?)"
LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
HOST = rf"(?:{LABEL}{DOT})+[^\W\d_][\w-]{{0,22}}[^\W_]"
_DOT, _AT = re.compile(DOT, re.IGNORECASE), re.compile(AT, re.IGNORECASE)


@dataclass(frozen=True)
class Indicator:
    """`text[start:end]` names `value`, which is normalised. `score` is below 1 where the form alone does not prove it."""

    start: int
    end: int
    type: str
    value: str
    score: float = 1.0
    properties: dict[str, str] = field(default_factory=dict, compare=False)


Finder = Callable[[str], Iterator[Indicator]]


def find_indicators(text: str, region: str | None = None) -> list[Indicator]:
    """All indicators in their order. Where two overlap, the one that says more counts: an address before its domain.

    `region` (ISO 3166, such as CH) reads phone numbers that are written without a country code.
    """
    found: list[Indicator] = []
    taken = bytearray(len(text))
    for finder in finders(region):
        for indicator in finder(text):
            if not any(taken[indicator.start : indicator.end]):
                found.append(indicator)
                taken[indicator.start : indicator.end] = b"\1" * (indicator.end - indicator.start)
    return sorted(found, key=lambda i: i.start)


def finders(region: str | None) -> tuple[Finder, ...]:
    return (
        urls, emails, fediverse, ipv6, ipv4, cves, ethereum, hashes, ibans, bitcoins, coordinates, domains, handles, partial(phones, region=region)
    )  # fmt: skip


# -- the web --------------------------------------------------------------------------------------------------

_URL = re.compile(
    rf"(?<![\w])(?:h(?:tt|xx|\*\*)ps?|f[tx]ps?)\s?(?:://|\[:\]//|\[://\]|:\[//\]|\(:\)//|:\\\\)(?:[^\s/@<>\"']{{1,80}}@)?"
    rf"(?:{HOST}|(?:\d{{1,3}}{DOT}){{3}}\d{{1,3}}|\[[0-9a-f:.]+\]|localhost)(?::\d{{1,5}})?(?:[/?#][^\s<>\"«»„“”]*)?",
    re.IGNORECASE,
)


def urls(text: str) -> Iterator[Indicator]:
    for match in _URL.finditer(text):
        surface = trimmed(match[0])[:URL_CHARS_MAX]
        scheme, _, rest = refang_url(surface).partition("://")
        host, slash, path = split_host(rest)
        user, at, host = host.rpartition("@")
        if host:
            yield Indicator(match.start(), match.start() + len(surface), "url", f"{scheme}://{user}{at}{host.lower()}{slash}{path}")


def refang_url(surface: str) -> str:
    """Refanged up to the path, which is left as it is but for [.] in it."""
    scheme = re.match(r"(?P<name>[a-z*]+)\s?(?:://|\[:\]//|\[://\]|:\[//\]|\(:\)//|:\\\\)", surface, re.IGNORECASE)
    assert scheme is not None  # the pattern of a URL begins so
    name = scheme["name"].lower().replace("xx", "tt").replace("**", "tt").replace("fxp", "ftp")
    host, slash, path = split_host(surface[scheme.end() :])
    return f"{name}://{_DOT.sub('.', host)}{slash}{path.replace('[.]', '.').replace('(.)', '.')}"


def split_host(rest: str) -> tuple[str, str, str]:
    found = re.match(r"(?P<host>[^/?#]*)(?P<slash>[/?#]?)(?P<path>.*)", rest, re.DOTALL)
    assert found is not None
    return found["host"], found["slash"], found["path"]


def trimmed(surface: str) -> str:
    """Without the punctuation of the sentence, and without a bracket that was opened before."""
    while surface:
        last = surface[-1]
        opening = {")": "(", "]": "[", "}": "{"}.get(last)
        if last in ".,;:!?'*_|" or (opening and surface.count(last) > surface.count(opening)):
            surface = surface[:-1]
        else:
            break
    return surface


_EMAIL = re.compile(rf"(?<![\w.+@/-])[^\W_][\w.!#$%&'*+=?^`{{|}}~-]{{0,63}}{AT}{HOST}(?![\w@])", re.IGNORECASE)
_DOTTED_LOCAL = re.compile(
    rf"(?<![\w.+@/-])(?:[\w+-]{{1,30}}(?:\s?\(dot\)\s?|\s?\[dot\]\s?|\[\.\])){{1,3}}[\w+-]{{1,30}}{AT}{HOST}", re.IGNORECASE
)


def emails(text: str) -> Iterator[Indicator]:
    for pattern in (_DOTTED_LOCAL, _EMAIL):
        for match in pattern.finditer(text):
            local, _, host = _AT.sub("@", match[0], count=1).partition("@")
            local, host = _DOT.sub(".", local), _DOT.sub(".", host).lower()
            if (known_suffix(host) or host.rpartition(".")[2] in RESERVED) and not local.endswith(".") and ".." not in local:
                yield Indicator(match.start(), match.end(), "email", f"{local.lower()}@{host}")


_FEDIVERSE = re.compile(rf"(?<![\w@./])@[A-Za-z0-9_][\w.-]{{0,60}}@{HOST}", re.IGNORECASE)


def fediverse(text: str) -> Iterator[Indicator]:
    for match in _FEDIVERSE.finditer(text):
        value = _DOT.sub(".", match[0]).lower()
        if known_suffix(value.rpartition("@")[2]):
            yield Indicator(match.start(), match.end(), "handle", value, properties={"platform": "fediverse"})


_DOMAIN = re.compile(rf"(?:(?<![\w@./\\-])|(?<=\*\.)){HOST}(?![\w@(-])", re.IGNORECASE)


def domains(text: str) -> Iterator[Indicator]:
    for match in _DOMAIN.finditer(text):
        surface = match[0]
        host = _DOT.sub(".", surface)
        suffix = host.rpartition(".")[2]
        defanged = host != surface
        if not defanged and not is_plain_domain(host, suffix):
            continue
        if known_suffix(host.lower()):
            yield Indicator(match.start(), match.end(), "domain", host.lower(), score=1.0 if defanged else 0.9)


def is_plain_domain(host: str, suffix: str) -> bool:
    """Whether a bare name with dots is meant as a domain, not as a file, a call, or two sentences without a space."""
    if suffix.lower() in FILES_ONLY and not host.lower().startswith("www."):
        return False
    if not (suffix.islower() or (host.isupper() and len(suffix) > 2 and host != "ASP.NET")):
        return False
    labels = host.split(".")
    if len(labels) == 2 and (suffix in IN_CODE or (suffix in WORDS and (len(labels[0]) < 4 or labels[0][0].isupper()))):
        return False
    if len(labels) > 2 and labels[0] in ("com", "org", "net", "java", "javax"):
        return False  # the name of a package
    return len(suffix) > 2 or any(len(label) > 1 for label in labels[:-1])  # not e.g, U.S


@cache
def suffixes() -> tldextract.TLDExtract:
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # only the list in the package: nothing is downloaded


@cache
def known_suffix(host: str) -> bool:
    return host.rpartition(".")[2] in HIDDEN or bool(suffixes()(host).suffix and suffixes()(host).domain)


_IPV4 = re.compile(rf"(?<![\w.])(?<![^\W\d]-)(?:\d{{1,3}}{DOT}){{3}}\d{{1,3}}(?!\w|-[^\W\d])(?!\.\d)", re.IGNORECASE)
_VERSION = re.compile(
    r"(?:\b(?:versi[oó]n|version|версия|ver|v|release|build|firmware|section|chapter|clause|§|no|nr)\.?[:=\"'\s]*|\d\.)$", re.IGNORECASE
)


def ipv4(text: str) -> Iterator[Indicator]:
    for match in _IPV4.finditer(text):
        value = _DOT.sub(".", match[0])
        if any(len(part) > 1 and part.startswith("0") for part in value.split(".")):
            continue
        if _VERSION.search(text[max(0, match.start() - 12) : match.start()]):
            continue
        try:
            yield Indicator(match.start(), match.end(), "ipv4", str(ipaddress.IPv4Address(value)))
        except ValueError:
            continue


_IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9a-f]{1,4}|:)(?::|\[:\])(?:[0-9a-f]{0,4}(?::|\[:\])){0,6}(?:[0-9a-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:(])(?!\.\d)",
    re.IGNORECASE,
)


def ipv6(text: str) -> Iterator[Indicator]:
    for match in _IPV6.finditer(text):
        value = match[0].replace("[:]", ":")
        if value.count(":") < 2 or (value != "::1" and not re.search(r"[0-9a-f]{2}", value, re.IGNORECASE)):
            continue
        try:
            yield Indicator(match.start(), match.end(), "ipv6", str(ipaddress.IPv6Address(value)))
        except ValueError:
            continue


# -- hashes, vulnerabilities ------------------------------------------------------------------------------------

_HEX = re.compile(r"(?<![\w-])(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9A-F]{32}|[0-9A-F]{40}|[0-9A-F]{64})(?![\w-])")
_HASH_OF = {32: "md5", 40: "sha1", 64: "sha256"}


def hashes(text: str) -> Iterator[Indicator]:
    for match in _HEX.finditer(text):
        value = match[0].lower()
        if re.search(r"[a-f]", value) and re.search(r"\d", value):
            yield Indicator(match.start(), match.end(), _HASH_OF[len(value)], value)


_CVE = re.compile(r"\bCVE[-‐‑–\s](?P<year>(?:19|20)\d\d)[-‐‑–](?P<number>\d{4,7})(?!\d)", re.IGNORECASE)


def cves(text: str) -> Iterator[Indicator]:
    for match in _CVE.finditer(text):
        yield Indicator(match.start(), match.end(), "cve", f"CVE-{match['year']}-{match['number']}")


# -- money --------------------------------------------------------------------------------------------------------

_ETH = re.compile(r"(?<!\w)0x[0-9a-fA-F]{40}(?!\w)")


def ethereum(text: str) -> Iterator[Indicator]:
    for match in _ETH.finditer(text):
        digits = match[0][2:]
        value = eip55(digits)
        if digits in (digits.lower(), digits.upper()):
            yield Indicator(match.start(), match.end(), "eth", value, score=0.9, properties={"checksum": "none"})
        elif value == match[0]:
            yield Indicator(match.start(), match.end(), "eth", value)


def eip55(digits: str) -> str:
    """The mixed-case checksum of an address (EIP-55): capitals where the Keccak-256 of the lower-case digits says so."""
    digits = digits.lower()
    digest = keccak.new(digest_bits=256, data=digits.encode()).hexdigest()
    return "0x" + "".join(c.upper() if int(d, 16) >= 8 else c for c, d in zip(digits, digest, strict=False))


_BTC = re.compile(r"(?<![\w/])(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{6,87}|BC1[02-9AC-HJ-NP-Z]{6,87})(?!\w)")


def bitcoins(text: str) -> Iterator[Indicator]:
    for match in _BTC.finditer(text):
        segwit = match[0][:3].lower() == "bc1"
        value = match[0].lower() if segwit else match[0]
        if bech32m(value) if value.startswith("bc1p") else bitcoin.is_valid(value):
            yield Indicator(match.start(), match.end(), "btc", value)


def bech32m(address: str) -> bool:
    """The checksum of a taproot address (BIP 350), which python-stdnum does not know: the polynomial of BIP 173, another constant."""
    check = 1
    digits = ["qpzry9x8gf2tvdw0s3jn54khce6mua7l".find(c) for c in address[3:]]
    for value in [3, 3, 0, 2, 3, *digits]:  # “bc” spread as BIP 173 says
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return -1 not in digits and check == 0x2BC830A3


_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?:[\s\u00a0-]?[A-Z0-9]{1,4}){3,9}", re.IGNORECASE)


def ibans(text: str) -> Iterator[Indicator]:
    """The longest beginning of what looks like one that has the right length for its country and the right checksum."""
    at = 0
    while match := _IBAN.search(text, at):
        at = match.start() + 4
        surface = match[0]
        while len(surface) >= 15:
            end = match.start() + len(surface)
            if not text[end : end + 1].isalnum() and is_iban(surface):
                value = re.sub(r"[^A-Z0-9]", "", surface.upper())
                yield Indicator(match.start(), end, "iban", value, properties={"country": value[:2]})
                at = end
                break
            surface = re.sub(r"[\s\u00a0-]?[^\s\u00a0-]+$", "", surface)


def is_iban(surface: str) -> bool:
    try:
        iban.validate(re.sub(r"[^A-Za-z0-9]", "", surface), check_country=False)
    except ValidationError:
        return False
    return True


# -- people and places ------------------------------------------------------------------------------------------------

_PHONE = re.compile(r"(?<![\w+./-])(?:\+|00|\(\+|\()?\d[\d \t\u00a0().\-–‑/]{5,}\d(?!\w)")


def phones(text: str, region: str | None = None) -> Iterator[Indicator]:
    for match in _PHONE.finditer(text):
        whole = match[0]
        if len(whole) > PHONE_CHARS_MAX:
            continue
        without_last = re.sub(r"[\s\u00a0/(]+\(?\d{1,4}$", "", whole)  # “(24 h)” and the like after it
        for surface in (whole, without_last) if without_last != whole else (whole,):
            number = read_phone(surface, region)
            if number is None:
                continue
            valid = phonenumbers.is_valid_number(number)
            if valid or (surface.startswith("+") and phonenumbers.is_possible_number(number)):
                where = phonenumbers.region_code_for_number(number) or ""
                value = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
                end = match.start() + len(surface)
                yield Indicator(match.start(), end, "phone", value, 1.0 if valid else 0.6, {"region": where} if where else {})
                break


def read_phone(surface: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    dialled = surface.lstrip("(")
    international = dialled.startswith(("+", "00"))
    if not international and (region is None or not looks_national(surface)):
        return None
    try:
        return phonenumbers.parse("+" + dialled[2:] if dialled.startswith("00") else surface, None if international else region)
    except phonenumbers.NumberParseException:
        return None


def looks_national(surface: str) -> bool:
    """A number without a country code begins with 0 or a bracket, or has groups; it is no date and no amount."""
    digits = re.sub(r"\D", "", surface)
    if not 7 <= len(digits) <= 13 or re.fullmatch(r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{2,4}", surface):
        return False
    return surface.startswith(("0", "(")) or bool(re.fullmatch(r"\d{3}[\s.-]\d{3}[\s.-]\d{4}", surface))


_DECIMAL = re.compile(
    r"(?<![\w.,-])(?:(?P<ns0>[NS])\s?)?(?P<lat>[+−-]?\d{1,2}\.\d{3,10})\s?°?\s?(?P<ns>[NS])?\s?[,;/\s]\s?"
    r"(?:(?P<ew0>[EWO])\s?)?(?P<lon>[+−-]?\d{1,3}\.\d{3,10})(?:\s?°)?(?:\s?(?P<ew>[EWO])(?!\w))?(?![\w])(?!\.\d)",
    re.IGNORECASE,
)  # fmt: skip
_DEGREES = re.compile(
    r"(?<![\w.])(?P<d1>\d{1,2})\s?°\s?(?:(?P<m1>\d{1,2}(?:\.\d+)?)\s?['′’]\s?)?(?:(?P<s1>\d{1,2}(?:\.\d+)?)\s?(?:\"|″|”|''|′′)\s?)?(?P<ns>[NS])"
    r"[,;/\s]{0,3}(?P<d2>\d{1,3})\s?°\s?(?:(?P<m2>\d{1,2}(?:\.\d+)?)\s?['′’]\s?)?(?:(?P<s2>\d{1,2}(?:\.\d+)?)\s?(?:\"|″|”|''|′′)\s?)?(?P<ew>[EWO])(?!\w)",
    re.IGNORECASE,
)


def coordinates(text: str) -> Iterator[Indicator]:
    for match in _DEGREES.finditer(text):
        latitude = degrees(match["d1"], match["m1"], match["s1"]) * (-1 if match["ns"].upper() == "S" else 1)
        longitude = degrees(match["d2"], match["m2"], match["s2"]) * (-1 if match["ew"].upper() == "W" else 1)
        yield from place(match, latitude, longitude)
    for match in _DECIMAL.finditer(text):
        south, west = (match["ns"] or match["ns0"] or "").upper() == "S", (match["ew"] or match["ew0"] or "").upper() == "W"
        latitude = float(match["lat"].replace("−", "-")) * (-1 if south else 1)
        longitude = float(match["lon"].replace("−", "-")) * (-1 if west else 1)
        yield from place(match, latitude, longitude)


def degrees(whole: str, minutes: str | None, seconds: str | None) -> float:
    return int(whole) + float(minutes or 0) / 60 + float(seconds or 0) / 3600


def place(match: re.Match, latitude: float, longitude: float) -> Iterator[Indicator]:
    if abs(latitude) <= 90 and abs(longitude) <= 180:
        end = match.end() - (len(match[0]) - len(match[0].rstrip()))
        yield Indicator(match.start(), end, "coordinates", f"{latitude:.5f},{longitude:.5f}")


_HANDLE = re.compile(r"(?<![\w@.&=])@(?=\w*[A-Za-z])[A-Za-z0-9_]{2,30}(?:\.[A-Za-z0-9_]{2,29}){0,3}(?![\w@(]|\.\w|/\w)")
_CODE = re.compile(
    r"@(?:Override|Test|Autowired|Deprecated|Component|Service|staticmethod|property|classmethod|param|return|media|import|Bean|Entity|Inject)\b"
)


def handles(text: str) -> Iterator[Indicator]:
    for match in _HANDLE.finditer(text):
        if not _CODE.match(match[0]):
            yield Indicator(match.start(), match.end(), "handle", match[0].lower(), score=0.8)
