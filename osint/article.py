"""The text of an article page: trafilatura in precision mode, after the page is cut down and before stray lines are cut off."""

import re
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from typing import Any

from htmldate import find_date
from lxml.etree import ElementDefaultClassLookup, HTMLParser, ParserError, XPath, strip_elements
from lxml.html import HtmlComment, HtmlElement, document_fromstring
from trafilatura import bare_extraction
from trafilatura.metadata import examine_meta, extract_author, extract_meta_json, extract_title
from trafilatura.settings import Document, set_date_params
from trafilatura.utils import is_dubious_html, repair_faulty_html
from trafilatura.xml import delete_element
from trafilatura.xpaths import BODY_XPATH

PARSER = HTMLParser(collect_ids=False, default_doctype=False, encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
PARSER.set_element_class_lookup(ElementDefaultClassLookup(element=HtmlElement, comment=HtmlComment))

BOX_CHARS_MAX = 1_000  # what holds more text than this is no box beside the article, whatever its class says
BOX_SHARE_MAX = 0.3  # of the text in paragraphs; all boxes together take out no more
OWN_CHARS = 200
SHORT_CHARS = 500  # a text shorter than this is read again with more care
HEAD_LINES = 3
HEAD_CHARS = 120
POINTER_WORDS = 20
CLOSING_LINES = 10
CLOSING_WORDS = 40

LINKED_HEADING = XPath("boolean((.//h1|.//h2|.//h3|.//h4)[ancestor::a or .//a[@href and not(contains(@href, '#'))]])")

# Taken out before the first search: trafilatura takes them out too, but only after it has copied and searched the tree.
NO_TEXT_TAGS = ("style", "svg", "iframe", "template", "select")
NO_ARTICLE_TAGS = ("noscript", "nav", "footer", "audio", "button", "canvas", "embed", "input", "label", "object", "picture", "video")

BOX_TAGS = ("aside", "blockquote", "div", "h2", "h3", "h4", "li", "ol", "p", "section", "span", "table", "ul")
# whole words of a class or an id: "newsletter-box" and "c-newsletter", but not "newsletters2019"
BOX = re.compile(
    r"(?:^|[\s_-])(?:cta|newsletter|sign-?up|subscribe|promo|advert|advertisement|sponsor|sponsored|recirc"
    r"|trending|most-?(?:read|popular|viewed)|more-?stories|read-?more|read-?also|see-?also|you-may-like"
    r"|author-?(?:bio|box)|about-?(?:the-)?author|copyright|post-?tags|tag-?list|screen-reader-text|sr-only|visually-?hidden"
    r"|(?:rollover|tooltip|popover|popup|hovercard)-(?:block|body|box|content|text))(?:[\s_-]|$)",
    re.IGNORECASE,
)
BODY = re.compile(
    r"(?:^|[\s_-])(?:(?:article|post|story)(?:-|__)?body|body-text|(?:article|entry|post|story)(?:-|__)?content)(?:[\s_-]|$)",
    re.IGNORECASE,
)
# a line that points to another page
POINTER = re.compile(
    r"^\W*(?:(?:read|see) (?:more|also|next)\b|(?:more|read|watch|listen)\s*(?::|\||$)"
    r"|(?:also read|related|recommended|must read|most read|don.t miss|advertisement|sponsored|story continues below)"
    r"(?: (?:stories|articles?|posts?|content|coverage|news|videos?|in [\w ]{3,20}))?\s*(?::|\||$)"
    r"|(?:leia (?:mais|também)|leggi anche|(?:à )?lire aussi|le[ea] también|lesen sie auch|lees ook|läs (?:också|mer)"
    r"|czytaj (?:też|także)|baca juga|(?:читайте|смотрите) также)\b)",
    re.IGNORECASE,
)
# a line after the article's end
CLOSING = re.compile(
    r"^\W*(?:follow (?:us|me|him|her|them|our|@)\b|follow .{0,40}\bcoverage\b|like us on|join (?:us|our)\b|share this\b|sign up\b"
    r"|subscribe\b|©|\(c\) |copyright\b.{0,40}\b\d{4}\b|all rights reserved|filed under\b|tagged\b|(?:tags?|categor(?:y|ies)|sources?)\s*:"
    r"|(?:last )?updated:?\s+(?:at |on )?(?:\w+ )?\d|(?:(?:additional )?report(?:ing|ed)|edit(?:ing|ed)|written) by\b"
    r"|click here (?:to|for)\b)"
    r"|\bcontributed (?:to|reporting)\b|\bfollow .{0,60} on (?:twitter|x|facebook|instagram)\b",
    re.IGNORECASE,
)
# a line that stands above tags or links at the article's end
LABEL = re.compile(
    r"^\W*(?:tags?|topics|filed under|related(?: (?:articles?|content|news|posts?|stories|topics))?|more (?:from|on|stories)\b.{0,40}"
    r"|you (?:may|might) also like)\W*$",
    re.IGNORECASE,
)
DATELINE = re.compile(
    r"^\W*(?:(?:published|posted|updated|publicado|publié|pubblicato|veröffentlicht|опубликовано)\b\D{0,20})?"
    r"(?:(?:[^\W\d]+\W+){0,4}\d{1,2}\W+(?:[^\W\d]+\W+){0,3}(?:\d{1,2}\W+)?(?:19|20)\d\d|(?:19|20)\d\d[-./]\d\d[-./]\d\d)\b"
    r"\W*(?:[^\W\d]{1,4}\W+)?[\d:.h]*\W*(?:[^\W\d]{1,5}\W*){0,2}$",
    re.IGNORECASE,
)
BYLINE = re.compile(r"^(?:By|BY|by)(?:,? (?:[^\W\d_a-z][\w.'’-]*|and|de|van|von|der|&)){1,8}$")


def article(tree: HtmlElement, html: str, url: str) -> Document | None:
    """A trafilatura document (text, title, author, date), or None where the page is no HTML. Its tree is used up.

    Metadata are read from the whole page; then other posts and boxes are taken out of it, and its text is extracted.
    """
    if is_dubious_html(html[:50].lower()) and len(tree) < 2:  # as trafilatura judges it
        return None
    strip_elements(tree, *NO_TEXT_TAGS, with_tail=False)
    document = metadata(tree, url)
    titles = [words(document.title or ""), *(words(heading.text_content()) for heading in tree.iter("h1"))]
    # a date or a name above the text is dropped only where metadata have it
    known = [pattern for pattern, value in ((DATELINE, document.date), (BYLINE, document.author)) if value]
    strip_elements(tree, *NO_ARTICLE_TAGS, with_tail=False)
    drop_teasers(tree)
    join_parts(tree)
    drop_boxes(tree)
    text = extracted(tree, url)
    lines = without_head([line for line in text.split("\n") if line.strip()], titles, known)
    document.text = "\n".join(line for line in without_closing(lines) if not is_pointer(line))
    return document


def parse(html: str) -> HtmlElement | None:
    """As trafilatura parses, but with one class for all elements: lxml.html asks Python for the class of each one. None for nothing."""
    try:
        return document_fromstring(repair_faulty_html(html, html[:50].lower()).encode("utf-8", "surrogatepass"), parser=PARSER)
    except ParserError:
        return None


def metadata(tree: HtmlElement, url: str) -> Document:
    """Title, author and date, in trafilatura's order: it looks for tags, licence and more as well, which costs as much again."""
    found = examine_meta(tree)
    if found.author and " " not in found.author:
        found.author = None
    with suppress(Exception):  # as in trafilatura: a page's own JSON may be anything
        found = extract_meta_json(tree, found)
    found.title = found.title or extract_title(tree)
    found.author = found.author or extract_author(tree)
    found.date = find_date(tree, **set_date_params(extensive=True), url=found.url or url)
    return found


def extracted(tree: HtmlElement, url: str) -> str:
    """In precision mode, which leaves out more: from the part that looks like the body alone, which is cheaper, else from the
    whole page, compared with other extractors. A text that comes out short is compared with balanced mode's as well, but not
    with jusText's, which would take as long as ten pages."""
    body = body_of(tree)
    text = text_of(body, url, precision=True, fast=True) if body is not None else ""
    if len(text) < SHORT_CHARS:
        text = text_of(tree, url, precision=True, fast=False)
    if len(text) < SHORT_CHARS:
        balanced = text_of(tree, url, precision=False, fast=True)
        text = balanced if len(balanced) > 2 * len(text) else text
    return text


def text_of(tree: HtmlElement, url: str, *, precision: bool, fast: bool) -> str:
    found: Any = bare_extraction(tree, url=url, include_comments=False, favor_precision=precision, fast=fast)
    return (found.text or "") if found is not None else ""


def body_of(tree: HtmlElement) -> HtmlElement | None:
    """A page that has nothing but a copy of what trafilatura would take for the body; None where it finds none."""
    body = next((found[0] for expression in BODY_XPATH if (found := expression(tree))), None)
    if body is None:
        return None
    page = PARSER.makeelement("html")
    page.append(PARSER.makeelement("body"))
    page[0].append(deepcopy(body))
    return page


def drop_teasers(tree: HtmlElement) -> None:
    """Takes out short articles inside an article: other posts, known by a heading that links or by a number of their own.

    Where articles hold little text outside those inside them, as on a live page, the inner ones are the text and stay.
    """
    nested = [(node, outer) for node in tree.iter("article") if (outer := next(node.iterancestors("article"), None)) is not None]
    whole = [node for node in tree.iter("article") if next(node.iterancestors("article"), None) is None] if nested else []
    inside = [node for node, outer in nested if outer in whole]
    if sum(map(text_size, whole)) - sum(map(text_size, inside)) < OWN_CHARS:
        return
    for inner, outer in nested:
        number, other = outer.get("id") or "", inner.get("id") or ""
        numbered = number != other and number.startswith("post-") and other.startswith("post-")
        if text_size(inner) <= BOX_CHARS_MAX and (numbered or LINKED_HEADING(inner)):
            delete_element(inner)


def join_parts(tree: HtmlElement) -> None:
    """Joins a body that adverts cut into parts: later parts of the same class in the same article go into the first."""
    named = [node for node in tree.iter("div", "section") if BODY.search(node.get("class") or "")]
    parts = [(node, whole) for node in named if (whole := next(node.iterancestors("article"), None)) is not None]
    for part, whole in parts[1:]:
        first, first_whole = parts[0]
        alike = whole is first_whole and part.get("class") == first.get("class")
        if alike and first not in part.iterancestors() and part.find(".//h1") is None:
            first.extend(list(part))


def drop_boxes(tree: HtmlElement) -> None:
    """Takes out newsletter boxes, adverts, author notes and the like, as long as they are a small part of the page."""
    boxes = [node for node in tree.iter(*BOX_TAGS) if is_box(node.get("class") or "") or is_box(node.get("id") or "")]
    left = BOX_SHARE_MAX * sum(map(text_size, tree.iter("p"))) if boxes else 0
    for box in boxes:
        prose = sum(map(text_size, box.iter("p")))
        if prose <= left and text_size(box) <= BOX_CHARS_MAX and box.find(".//h1") is None:
            left -= prose
            delete_element(box)


@lru_cache(maxsize=10_000)  # a page has the same few hundred names again and again
def is_box(name: str) -> bool:
    return BOX.search(name) is not None


def text_size(node: HtmlElement) -> int:
    return sum(len(text.strip()) for text in node.xpath(".//text()[not(parent::script or parent::style)]"))


def without_head(lines: list[str], titles: list[list[str]], known: list[re.Pattern[str]]) -> list[str]:
    """Without the title, and the date and name metadata have, above the text."""
    start = 0
    while start < min(len(lines) - 1, HEAD_LINES) and is_head(lines[start], titles, known):
        start += 1
    return lines[start:]


def is_head(line: str, titles: list[list[str]], known: list[re.Pattern[str]]) -> bool:
    line_words = words(line)
    if not line_words or any(same_title(line_words, title) for title in titles):
        return True
    return len(line) <= HEAD_CHARS and any(pattern.match(line.strip()) for pattern in known)


def same_title(line: list[str], title: list[str]) -> bool:
    """Equal, or one begins with the other: titles are shortened, or lengthened by the site's name."""
    shared = min(len(line), len(title))
    return line == title or (shared >= 4 and line[:shared] == title[:shared] and len(line) <= len(title) + 4)


def is_pointer(line: str) -> bool:
    return POINTER.match(line) is not None and line.rstrip()[-1:] not in ".!" and len(words(line)) <= POINTER_WORDS


def without_closing(lines: list[str]) -> list[str]:
    """Without the credits, tags, links and invitations that follow the text."""
    for at in range(max(1, len(lines) - CLOSING_LINES), len(lines)):
        if LABEL.match(lines[at]) and not any(line.rstrip()[-1:] in ".!" for line in lines[at + 1 :]):
            lines = lines[:at]
            break
    end = len(lines)
    while end > 1 and CLOSING.search(lines[end - 1]) and len(words(lines[end - 1])) <= CLOSING_WORDS:
        end -= 1
    return lines[:end]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
