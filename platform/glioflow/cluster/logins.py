"""Names and passwords in addresses, which nobody but the store behind an address may read."""

import re

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<rest>\S*)")
# Of a web address, before its path; of a database, as SQLAlchemy reads it: a password may hold '/'.
_WEB, _DATABASE = re.compile(r"[^/?#]*@"), re.compile(r"[^:/@]*(?::[^@]*)?@(?:[^/?@]*@)*")
# A proxy's address may come without a scheme.
_BARE = re.compile(r"^[^:/@\s]+:[^/@\s]+@")
_IN_QUERY = re.compile(r"([?&]\w*passw(?:or)?d=)[^&#\s]+", re.IGNORECASE)


def has_password(address: str) -> bool:
    """Return whether a password stands in an address."""
    logins = [_login(match) for match in _ADDRESS.finditer(address)]
    return any(":" in login for login in logins) or bool(_BARE.search(address) or _IN_QUERY.search(address))


def without_password(text: str) -> str:
    """Return an address, or a text with addresses, without the names and passwords of who uses them."""
    bare = _BARE.sub("", text)
    return _IN_QUERY.sub(r"\1", _ADDRESS.sub(lambda match: match[0].replace(_login(match), "", 1), bare))


def _login(match: re.Match[str]) -> str:
    """Return `NAME:PASSWORD@` of an address; empty where there is none."""
    pattern = _WEB if match["scheme"].lower() in ("http", "https") else _DATABASE
    login = pattern.match(match["rest"])
    return login[0] if login else ""
