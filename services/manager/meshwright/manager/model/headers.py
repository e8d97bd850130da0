"""Names of HTTP header fields, in lower case: case doesn't count in them (RFC 9110 §5.1)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_TOKEN = re.compile(r":?[-!#$%&'*+.^_`|~0-9A-Za-z]{1,256}")


def header_name(text: str) -> str:
    """Accept a field's name, or HTTP/2's name of a part of the first line (``:authority``)."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} isn't a header's name: write letters, digits and '-'")
    return text.lower()


HeaderName = Annotated[str, AfterValidator(header_name)]
