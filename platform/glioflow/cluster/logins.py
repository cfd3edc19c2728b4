"""User names and passwords in addresses, which only the store at an address may see."""

import re

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<rest>\S*)")
# Login in a web address, before the path, or in a database address as SQLAlchemy parses it: it may contain '/'.
_WEB, _DATABASE = re.compile(r"[^/?#]*@"), re.compile(r"[^:/@]*(?::[^@]*)?@(?:[^/?@]*@)*")
# A proxy's address may have no scheme.
_BARE = re.compile(r"^[^:/@\s]+:[^/@\s]+@")
# A password of a database, or what signs an address of an object store.
_IN_QUERY = re.compile(
    r"([?&](?:sig|[\w.-]*(?:passw(?:or)?d|secret|token|signature|credential)[\w.-]*)=)[^&#\s]+", re.IGNORECASE
)


def has_password(address: str) -> bool:
    """Return whether an address contains a password."""
    logins = [_login(match) for match in _ADDRESS.finditer(address)]
    return any(":" in login for login in logins) or bool(_BARE.search(address) or _IN_QUERY.search(address))


def without_password(text: str) -> str:
    """Return an address, or a text with addresses, without user names and passwords."""
    bare = _BARE.sub("", text)
    return _IN_QUERY.sub(r"\1", _ADDRESS.sub(lambda match: match[0].replace(_login(match), "", 1), bare))


def _login(match: re.Match[str]) -> str:
    """Return `NAME:PASSWORD@` of an address; empty if there is none."""
    pattern = _WEB if match["scheme"].lower() in ("http", "https") else _DATABASE
    login = pattern.match(match["rest"])
    return login[0] if login else ""
