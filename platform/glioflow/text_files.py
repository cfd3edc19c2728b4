"""Text files that people write, such as tables, lists and settings: in UTF-8."""

import codecs
from pathlib import Path

from glioflow.errors import UserError


def read_text(path: Path, *, wide: bool = False, errors: str = "strict") -> str:
    """Return the text of a file without a byte order mark.

    Args:
        path: The file.
        wide: Whether it may also be in UTF-16 with its mark, as spreadsheets and shells save tables and lists.
        errors: What to do with bytes in another encoding, as in `bytes.decode`.

    Raises:
        UserError: If it is in another encoding: says where, and what to do.
        OSError: If it cannot be read.
    """
    content = path.read_bytes()
    is_wide = wide and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        hint = "save it as UTF-8" + (", which spreadsheets call CSV UTF-8" if path.suffix.lower() == ".csv" else "")
        value = f"the byte {content[error.start]:#04x} in line {line}"
        raise UserError("the encoding of the file must be UTF-8", value, hint=hint, file=path) from None
