"""Explains why a value is not JSON, for its producer's developer.

Input: the bytes, and the parser's complaint. Output: the cause, in one sentence that contains nothing of the value.
"""

import re
from base64 import b64decode

from pydantic_core import from_json

UTF8_BOM = b"\xef\xbb\xbf"

_LOOKED_AT = 4_096  # bytes from the beginning that tell what it is
_BLANKS = b" \t\r\n"

_SIGNATURES = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
    (b"\x82SNAPPY\x00", "snappy"),
    (b"\x78\x01", "zlib"),
    (b"\x78\x5e", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
)
_ENCODINGS = (
    # Longest first: a byte order mark of UTF-32 begins like one of UTF-16.
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|\0\0\0[{\[\"\s]\0\0\0.|[{\[\"\s]\0\0\0.\0\0\0", re.DOTALL), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff|\0[{\[\"\s]\0[^\0]|[{\[\"\s]\0[^\0]\0"), "UTF-16"),
)
# Confluent's: a zero byte, then the schema's number in four; AWS Glue's: 3, how it is compressed, and 16 of a UUID.
_REGISTRY = re.compile(rb"\0|\x03[\0\x05].{16}", re.DOTALL)
_FORM = re.compile(rb"[\w.%+\[\]-]+=[^\s{}\"&]*(?:&[\w.%+\[\]-]+=[^\s{}\"&]*)*&?")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16}[A-Za-z0-9+/_\r\n-]*={0,2}\s*")
_OBJECT = re.compile(r"[\[\s]*\{\s*\"")
_LITERALS = re.compile(rb"(?:None|True|False|undefined|NaN|Infinity)\b")
_PLACE = re.compile(r"line (\d+) column (\d+)")


def cause(value: bytes, complaint: str) -> str:
    """Return why a value is not JSON.

    Args:
        value: The bytes, at least one.
        complaint: What the parser, pydantic's, says.
    """
    beginning = value[:_LOOKED_AT]
    return _other_format(beginning) or _other_text(value, beginning.lstrip(_BLANKS)) or _fault(value, complaint)


def _other_format(beginning: bytes) -> str | None:
    for signature, name in _SIGNATURES:
        if beginning.startswith(signature):
            return f"it is compressed with {name}; send it as it is, and let the Kafka client compress"
    for pattern, name in _ENCODINGS:
        if pattern.match(beginning):
            return f"it is in {name}; send UTF-8"
    if _REGISTRY.match(beginning):
        return "this looks like a schema registry's framing; send plain JSON"
    if beginning.startswith(b"Obj\x01"):
        return "it is an Avro file; send plain JSON"
    if not beginning.strip(_BLANKS):
        return "it is blank"
    return None


def _other_text(value: bytes, text: bytes) -> str | None:
    if not text.strip(_BLANKS + UTF8_BOM):
        return "it is a byte order mark, and nothing else"
    if text.startswith(UTF8_BOM):
        return "several byte order marks stand before it; send none"
    if text.startswith(b"<"):
        return "it is XML or HTML"
    if text.startswith(b"[object "):
        return "it is what JavaScript makes of an object as text; send JSON.stringify of it"
    if re.match(rb"[{\[]\s*'", text):
        return "its strings are in single quotes; JSON has double quotes (json.dumps in Python)"
    if text.startswith((b"//", b"/*", b"#")):
        return "it begins with a comment, and JSON has none"
    if _is_json_in_base64(value):
        return "it is base64; send the bytes that it stands for"
    if _FORM.fullmatch(text.rstrip(_BLANKS)):
        return "it is form-encoded (name=value&...)"
    return None


def _is_json_in_base64(value: bytes) -> bool:
    """Whether bytes are base64 of JSON, perhaps compressed or in another encoding."""
    if not _BASE64.fullmatch(value):
        return False
    beginning = b"".join(value[:128].split())[:64].replace(b"-", b"+").replace(b"_", b"/")
    try:
        decoded = b64decode(beginning[: len(beginning) // 4 * 4])
    except ValueError:
        return False
    text = decoded.removeprefix(UTF8_BOM).lstrip(_BLANKS)
    return text.startswith((b"{", b"[")) or any(decoded.startswith(signature) for signature, _ in _SIGNATURES)


def _fault(value: bytes, complaint: str) -> str:
    """Return what is wrong with text that was meant to be JSON, or with bytes that nothing is known of."""
    at = _offset(value, complaint)
    if complaint.startswith("recursion limit exceeded"):
        return f"its objects and arrays are nested more than 200 deep ({complaint})"
    if complaint.startswith("trailing comma"):
        return f"a comma stands before a closing bracket ({complaint})"
    if complaint.startswith("trailing characters"):
        if value[at:].startswith((b"{", b"[")):
            return f"there are several JSON documents in it; send each as a record of its own ({complaint})"
        return f"something follows after its end ({complaint})"
    if complaint.startswith("number out of range"):
        return f"it holds a number of thousands of digits, which nothing can hold ({complaint})"
    if complaint.startswith(("unexpected end of hex escape", "lone leading surrogate")):
        return f"half of a surrogate pair stands in a string: was it cut within an emoji? ({complaint})"
    if (byte := _not_utf8(value)) is not None:
        return f"it is not UTF-8, at byte {byte}"
    if re.search(rb"[\0-\x08\x0e-\x1f]", value[:200]):
        return "it is binary; send plain JSON"
    if complaint.startswith("EOF"):
        return f"it ends too early: was it cut off? ({complaint})"
    if complaint.startswith("key must be a string"):
        return f"names of fields should stand in double quotes ({complaint})"
    if match := _LITERALS.match(value, max(0, at - 1)) or _LITERALS.match(value, at):
        # One of a closed list of words, none of them personal.
        return f"{match[0].decode()} is no JSON; JSON has null, true, false and numbers ({complaint})"
    return complaint


def _offset(value: bytes, complaint: str) -> int:
    """Return the offset of the place that the parser names."""
    place = _PLACE.search(complaint)
    if place is None:
        return 0
    start = 0
    for _ in range(int(place[1]) - 1):
        start = value.find(b"\n", start) + 1
    return start + max(0, int(place[2]) - 1)


def _not_utf8(value: bytes) -> int | None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def encoded_again(text: str) -> str | None:
    """Return why a string is what should be an object; `None` where it does not look like one that was encoded."""
    if _is_json_in_base64(text.encode(errors="replace")):
        return "this is base64 within a JSON string: the object was encoded as bytes; send the object itself"
    text = text.lstrip("\ufeff \t\r\n")
    if not text.startswith(("{", "[", '"')):
        return None
    try:
        from_json(text)
    except ValueError as error:
        # One that was cut off, or several in a row.
        if not (_OBJECT.match(text) and str(error).startswith(("EOF", "trailing characters"))):
            return None
    return "this is JSON within a JSON string: it was encoded twice; send the object itself"
