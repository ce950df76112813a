"""What a secret is, in an address and in a text: the one place that knows, for settings, errors and logs.

A secret is the password of an address (`scheme://user:password@host`; over HTTP the user as well, which may
be a token), and the value of a parameter with a telling name (`?password=`, `?X-Amz-Signature=`). Rather too
much is masked than too little: a masked address is only read, and what is recorded stays for ever.
"""

import re
from typing import Any
from urllib.parse import unquote_plus

MASK = "***"
_LONGEST = 300  # characters of a text from outside that an error repeats

# Compared without case, hyphens, underscores and dots: X-Amz-Signature is xamzsignature.
_NAMES = frozenset({"key", "pass", "sig", "sas", "auth", "pin"})
_BEGINNINGS = ("xamz", "xgoog")
_PARTS = (
    *(
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "token",
        "signature",
        "credential",
        "authorization",
    ),
    *("apikey", "accesskey", "accountkey", "privatekey", "sessionkey", "subscriptionkey"),
)

# No password follows the colon: it is masked already; it is a port (host:8080/a@b is a path with an at sign);
# it is that of a chain (zip://a.png::s3://bucket).
_NO_PASSWORD = r"(?!\*\*\*@)(?!\d{1,5}(?:[/?#\s'\",)]|$))(?!:[A-Za-z][\w+.-]*:)"  # noqa: S105 - a pattern
# To the last at sign before the query: a user and a password may hold at signs and, unescaped, slashes.
# One slash will do: pathlib makes s3:/bucket of s3://bucket.
_URL_LOGIN = re.compile(rf"(:/{{1,3}}[^:/?#]*):{_NO_PASSWORD}[^@]*@(?:(?:(?!://)[^?#])*@)?")
_TEXT_LOGIN = re.compile(rf"(:/{{1,3}}[^\s:/?#'\"]*):{_NO_PASSWORD}[^@\n]*@(?:(?:(?!://)[^?#\s])*@)?")
_WEB_USER = re.compile(r"(?<=http)(s?:/{1,3})[^\s/?#]+@", re.IGNORECASE)
# What is left of s3://key:secret@bucket where fsspec has taken the scheme away.
_BARE_LOGIN = re.compile(rf"(^|[\s'\"(])([\w.+-]+):{_NO_PASSWORD}[^\s@/][^\s@]*@(?=[\w*])")

_URL_PAIR = re.compile(r"[?&;#]([^=&;#?]+)=")
_URL_VALUE_END = re.compile(r"&")
# Also as a driver's own spelling (password=x) and as a dict is printed ('password': 'x'). After a colon and a
# space comes prose, as in all errors that name a key.
_TEXT_PAIR = re.compile(r"(?<![\w.%-])([\w.%-]+)(?:=|:(?=[^\s/])|['\"]:\s*)")
_TEXT_VALUE_END = re.compile(r"&|['\"`)\]}>,;.:]*(?:\s|$)")


def is_secret_name(name: str) -> bool:
    """Return whether a parameter of this name holds a secret, by its name alone."""
    plain = re.sub(r"[-_.\s]", "", unquote_plus(name)).lower()
    return plain in _NAMES or plain.startswith(_BEGINNINGS) or any(part in plain for part in _PARTS)


def masked_url(value: str) -> str:
    """Return a setting's value with each secret of an address in it masked; fsspec's chains included."""
    value = _without_pairs(value, _URL_PAIR, _URL_VALUE_END)
    value = _WEB_USER.sub(rf"\1{MASK}@", _URL_LOGIN.sub(rf"\1:{MASK}@", value))
    address, mark, query = value.partition("?")
    inner = unquote_plus(query)
    if inner != query and masked_text(inner) != inner:  # an address inside the address, with its escapes
        return f"{address}{mark}{MASK}"
    return value


def masked_text(text: str) -> str:
    """Return a text, such as a driver's error, with each secret of the addresses in it masked."""
    text = _without_pairs(text, _TEXT_PAIR, _TEXT_VALUE_END)
    text = _WEB_USER.sub(rf"\1{MASK}@", _TEXT_LOGIN.sub(rf"\1:{MASK}@", text))
    return _BARE_LOGIN.sub(rf"\1\2:{MASK}@", text)


def masked_values(values: Any) -> Any:
    """Return JSON-ready values of settings with each text in them masked as `masked_url` does."""
    if isinstance(values, str):
        return masked_url(values)
    if isinstance(values, dict):
        return {masked_url(str(name)): masked_values(value) for name, value in values.items()}
    if isinstance(values, list):
        return [masked_values(value) for value in values]
    return values


def quoted_value(value: Any) -> str:
    """Return how an error repeats a value from outside: masked, and cut where it is long."""
    if isinstance(value, str):
        return short_text(repr(masked_url(value)))
    return short_text(repr(value)) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def short_text(text: str) -> str:
    """Return a text of at most 300 characters: a longer one is cut, and says how long it was."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _without_pairs(text: str, pair: re.Pattern[str], end: re.Pattern[str]) -> str:
    """Return a text in which the values of parameters with a secret's name are masked."""
    kept, at = [], 0
    for match in pair.finditer(text):
        if match.start() < at or not is_secret_name(match[1]):
            continue
        begin = match.end()
        quote = text[begin : begin + 1]
        if pair is _TEXT_PAIR and quote in ("'", '"') and (close := text.find(quote, begin + 1)) > 0:
            stop = close + 1
        else:
            found = end.search(text, begin)
            stop = found.start() if found else len(text)
        if stop > begin:
            kept += [text[at:begin], MASK]
            at = stop
    return "".join([*kept, text[at:]])
