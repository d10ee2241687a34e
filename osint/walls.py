"""Pages that stand in the way of the one that was asked for: challenges, log-ins, consent, empty shells for JavaScript.

Rules over the page's markup and its text. They count only where little text was found, for an article about captchas is
no captcha.
"""

import re
from urllib.parse import urlsplit

from lxml.html import HtmlElement

from osint.article import parse

TEXT_CHARS_MAX = 1_500
LITTLE_TEXT = 300
SEARCHED_CHARS = 200_000
# of lower case, and searched in it: letters of either case would take five times as long
CHALLENGE_MARKUP = re.compile(
    r"_cf_chl_opt|cf-chl-widget|id=[\"']px-captcha|geo\.captcha-delivery\.com/captcha|<title>\s*(?:just a moment|attention required!)",
)
CHALLENGE_WORDS = re.compile(
    r"g-recaptcha|h-captcha|hcaptcha\.com|turnstile|verify(?:ing)? (?:that )?you are (?:a )?human|are you a robot|pardon our interruption"
    r"|checking (?:if the site connection|your browser)|unusual traffic from your (?:computer )?network|request unsuccessful\. incapsula|ddos-guard",
)
CONSENT = re.compile(
    r"before you continue to|we value your privacy|accept all cookies|agree to our use of cookies|your privacy choices|consent\.(?:google|youtube|yahoo)"
    r"|bevor sie (?:zu|fortfahren)|avant d.accéder|nous respectons votre vie privée|cookie[- ]einstellungen|zustimmen und weiter",
)
LOGIN_TITLE = re.compile(r"^\W*(?:log ?in|sign ?in|anmelden|einloggen|connexion|iniciar sesión|accedi|войти|вход)\b", re.IGNORECASE)
LOGIN_PATH = re.compile(r"/(?:login|log-in|signin|sign-in|sso|auth|accounts?/login)(?:[/.?]|$)", re.IGNORECASE)
NEEDS_SCRIPT = re.compile(
    r"(?:enable|activate|turn on|requires?|need) (?:to )?javascript|javascript (?:is|must be) (?:disabled|required|enabled)|aktivieren sie javascript"
    r"|activer javascript|habilitar javascript|включите javascript",
)
SHELL_IDS = ("root", "app", "__next", "__nuxt", "main-app", "svelte", "___gatsby")


def wall_in(html: str, title: str, text: str, url: str) -> str:
    """The Document.Problem of a page, or an empty string when it seems to be what was asked for."""
    if len(text) > TEXT_CHARS_MAX:
        return ""
    start = html[:SEARCHED_CHARS].lower()
    if CHALLENGE_MARKUP.search(start) or (len(text) < LITTLE_TEXT and CHALLENGE_WORDS.search(start)):
        return "challenge"
    tree = parse(html)
    if tree is None:
        return "empty"
    asks_password = any((node.get("type") or "").lower() == "password" for node in tree.iter("input"))
    if asks_password and (LOGIN_TITLE.match(title) or LOGIN_PATH.search(urlsplit(url).path) or len(text) < LITTLE_TEXT):
        return "login"
    asks = next(tree.iter("form", "button"), None) is not None
    if asks and len(text) < 800 and CONSENT.search(text.lower() or start):
        return "consent"
    if len(text) < LITTLE_TEXT and is_shell(tree, start):
        return "javascript"
    return "" if text.strip() or text_in(tree.find("body")) else "empty"


def is_shell(tree: HtmlElement, start: str) -> bool:
    """A page whose content is made by its scripts: it says so, or has an empty place for it."""
    if next(tree.iter("script"), None) is None:
        return False
    if NEEDS_SCRIPT.search(start):
        return True
    places = (tree.find(f".//*[@id='{name}']") for name in SHELL_IDS)
    return any(place is not None and len(text_in(place)) < 40 for place in places)


def text_in(node: HtmlElement | None) -> str:
    """What a reader would see of a part, without scripts."""
    if node is None:
        return ""
    return "".join(node.xpath(".//text()[not(parent::script or parent::style or parent::noscript)]")).strip()
