"""Pages that stand in the way of the one that was asked for: challenges, log-ins, consent, empty shells for JavaScript.

Rules over the page's markup and its text. They count only where little text was found, for an article about captchas is
no captcha.
"""

import re
from urllib.parse import urlsplit

from selectolax.lexbor import LexborHTMLParser

TEXT_CHARS_MAX = 1_500
LITTLE_TEXT = 300
CHALLENGE_MARKUP = re.compile(
    r"_cf_chl_opt|cf-chl-widget|id=[\"']px-captcha|geo\.captcha-delivery\.com/captcha|<title>\s*(?:just a moment|attention required!)",
    re.IGNORECASE,
)
CHALLENGE_WORDS = re.compile(
    r"g-recaptcha|h-captcha|hcaptcha\.com|turnstile|verify(?:ing)? (?:that )?you are (?:a )?human|are you a robot|pardon our interruption"
    r"|checking (?:if the site connection|your browser)|unusual traffic from your (?:computer )?network|request unsuccessful\. incapsula|ddos-guard",
    re.IGNORECASE,
)
CONSENT = re.compile(
    r"before you continue to|we value your privacy|accept all cookies|agree to our use of cookies|your privacy choices|consent\.(?:google|youtube|yahoo)"
    r"|bevor sie (?:zu|fortfahren)|avant d.accéder|nous respectons votre vie privée|cookie[- ]einstellungen|zustimmen und weiter",
    re.IGNORECASE,
)
LOGIN_TITLE = re.compile(r"^\W*(?:log ?in|sign ?in|anmelden|einloggen|connexion|iniciar sesión|accedi|войти|вход)\b", re.IGNORECASE)
LOGIN_PATH = re.compile(r"/(?:login|log-in|signin|sign-in|sso|auth|accounts?/login)(?:[/.?]|$)", re.IGNORECASE)
NEEDS_SCRIPT = re.compile(
    r"(?:enable|activate|turn on|requires?|need) (?:to )?javascript|javascript (?:is|must be) (?:disabled|required|enabled)|aktivieren sie javascript"
    r"|activer javascript|habilitar javascript|включите javascript",
    re.IGNORECASE,
)
SHELL_IDS = ("root", "app", "__next", "__nuxt", "main-app", "svelte", "___gatsby")


def wall_in(tree: LexborHTMLParser, html: str, title: str, text: str, url: str) -> str:
    """The Document.Problem of a page, or an empty string when it seems to be what was asked for."""
    if len(text) > TEXT_CHARS_MAX:
        return ""
    if CHALLENGE_MARKUP.search(html[:200_000]) or (len(text) < LITTLE_TEXT and CHALLENGE_WORDS.search(html[:200_000])):
        return "challenge"
    asks_password = tree.css_first("input[type=password]") is not None
    if asks_password and (LOGIN_TITLE.match(title) or LOGIN_PATH.search(urlsplit(url).path) or len(text) < LITTLE_TEXT):
        return "login"
    asks = tree.css_first("form") is not None or tree.css_first("button") is not None
    if asks and len(text) < 800 and CONSENT.search(text or html[:200_000]):
        return "consent"
    if len(text) < LITTLE_TEXT and is_shell(tree, html):
        return "javascript"
    body = tree.body
    return "" if text.strip() or (body and body.text(strip=True)) else "empty"


def is_shell(tree: LexborHTMLParser, html: str) -> bool:
    """A page whose content is made by its scripts: it says so, or has an empty place for it."""
    if tree.css_first("script") is None:
        return False
    if NEEDS_SCRIPT.search(html[:200_000]):
        return True
    places = (tree.css_first(f"#{name}") for name in SHELL_IDS)
    return any(place is not None and len(place.text(strip=True)) < 40 for place in places)
