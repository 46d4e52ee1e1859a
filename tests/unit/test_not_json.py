"""A value that is not JSON gets a dead letter that says what it is, and nothing of what it holds."""

import bz2
import gzip
import lzma
import zlib
from base64 import b64encode, encodebytes, urlsafe_b64encode
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE

import cramjam
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import not_json
from tests.unit.test_cloudevents import BINARY, LIKED, decode, refusal

SECRET = "ada@example.org"
TEXT = orjson.dumps({"type": "post.liked", "email": SECRET, "note": "café"}).decode()
VALUE = TEXT.encode()


def cause(value: bytes) -> str:
    """Return what the dead letter says, having seen that a binary event's says the same."""
    reason, message = refusal("domain-events", value)
    assert reason == "not-json"
    assert SECRET not in message
    assert len(message) < 300
    assert refusal("domain-events", value, BINARY) == (reason, message)
    return message.removeprefix("the value is not JSON: ")


def test_a_byte_order_mark_of_utf_8_is_ignored() -> None:
    value = orjson.dumps(LIKED)
    assert decode("domain-events", BOM_UTF8 + value, BINARY) == decode("domain-events", value, BINARY)
    structured = {"specversion": "1.0", "id": "e-1", "type": "post.liked", "source": "/", "data": LIKED}
    assert decode("domain-events", BOM_UTF8 + orjson.dumps(structured)).id == "e-1"


@pytest.mark.parametrize("value", [BOM_UTF8, BOM_UTF8 * 2 + VALUE, BOM_UTF8 * 100_000])
def test_a_byte_order_mark_without_a_document_is_refused(value: bytes) -> None:
    assert refusal("domain-events", value)[0] == "not-json"


def test_what_is_wrong_after_a_byte_order_mark_is_told() -> None:
    assert cause(BOM_UTF8 + VALUE[:-1]).startswith("it ends too early")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (TEXT.encode("utf-16"), "UTF-16"),
        (BOM_UTF16_LE + TEXT.encode("utf-16-le"), "UTF-16"),
        (BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "UTF-16"),
        (TEXT.encode("utf-16-be"), "UTF-16"),
        (b"[" + b"\0" + b"1\0]\0", "UTF-16"),
        (BOM_UTF32_LE + TEXT.encode("utf-32-le"), "UTF-32"),
        (BOM_UTF32_BE + TEXT.encode("utf-32-be"), "UTF-32"),
        (TEXT.encode("utf-32-le"), "UTF-32"),
        (TEXT.encode("utf-32-be"), "UTF-32"),
    ],
)
def test_other_encodings_of_unicode_are_named(value: bytes, name: str) -> None:
    assert cause(value) == f"it is in {name}; send UTF-8"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman"])
def test_older_encodings_are_told_at_which_byte_they_are_no_utf_8(encoding: str) -> None:
    value = TEXT.encode(encoding)
    assert cause(value) == f"it is not UTF-8, at byte {TEXT.index('é')}"


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("depth", [201, 5_000])
def test_what_is_nested_too_deep_is_told_how_deep_it_may_be(opening: str, depth: int) -> None:
    closing = opening.replace('"a":', "").replace("[", "]").replace("{", "}")[::-1]
    assert cause((opening * depth + "1" + closing * depth).encode()).startswith(
        "its objects and arrays are nested more than 200 deep (recursion limit exceeded at line 1 column "
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (gzip.compress(VALUE, mtime=0), "gzip"),
        (bytes(cramjam.zstd.compress(VALUE)), "zstd"),
        (bytes(cramjam.lz4.compress(VALUE)), "lz4"),
        (bytes(cramjam.snappy.compress(VALUE)), "snappy"),
        (zlib.compress(VALUE), "zlib"),
        (zlib.compress(VALUE, 9), "zlib"),
        (zlib.compress(VALUE, 1), "zlib"),
        (zlib.compress(VALUE, 5), "zlib"),
        (bz2.compress(VALUE), "bzip2"),
        (lzma.compress(VALUE), "xz"),
        (b"PK\x03\x04" + bytes(30), "zip"),
    ],
)
def test_a_compressed_value_is_named(value: bytes, name: str) -> None:
    assert cause(value) == f"it is compressed with {name}; send it as it is, and let the Kafka client compress"


@pytest.mark.parametrize(
    "value",
    [
        b"\0\0\0\0\x05" + b"\x0a\x01a",
        b"\0\0\0\0\x05" + VALUE,
        b"\0\0\0\x01\x2c" + VALUE,
        b"\0\0\0\0\x7b" + VALUE,
        b"\0\0\x01\x86\xa0\0" + b"\x0c1-2-3-4",
        b"\0\0\0\0\x22",
        b"\0",
        b"\0" + VALUE,
        b"\0" + bytes(8) + VALUE,
        b"\x03\0" + bytes(range(100, 116)) + b"\x0a\x01a",
        b"\x03\x05" + bytes(range(100, 116)) + b"\x0a\x01a",
    ],
)
def test_a_schema_registrys_framing_is_told_to_be_left_away(value: bytes) -> None:
    assert cause(value) == "this looks like a schema registry's framing; send plain JSON"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the record has no value (a tombstone); expected a JSON object"),
        (b"", "the value is empty; expected a JSON object"),
        (b" \r\n\t", "the value is not JSON: it is blank"),
    ],
)
def test_a_value_with_nothing_in_it_is_told_how_much_of_nothing_it_is(value: bytes | None, message: str) -> None:
    assert refusal("domain-events", value) == ("not-json", message)


@pytest.mark.parametrize(
    "value",
    [
        TEXT + "\n" + TEXT,
        TEXT + TEXT,
        TEXT + "\r\n" + TEXT + "\r\n",
        '{"a": 1} [2]',
        TEXT.replace(",", ",\n") + "\n" + TEXT,
    ],
)
def test_several_documents_in_one_value_are_told_to_be_sent_apart(value: str) -> None:
    assert cause(value.encode()).startswith(
        "there are several JSON documents in it; send each as a record of its own (trailing characters at line "
    )


@pytest.mark.parametrize("value", [TEXT + "\0", TEXT + "}", TEXT + ";", TEXT + " // sent twice"])
def test_what_follows_a_document_is_told(value: str) -> None:
    assert cause(value.encode()).startswith("something follows after its end (trailing characters at line 1 column ")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("type=post.liked&email=ada%40example.org", "it is form-encoded (name=value&...)"),
        ("email=ada@example.org", "it is form-encoded (name=value&...)"),
        ("tags[]=a&tags[]=b+c&", "it is form-encoded (name=value&...)"),
        ("<event><email>ada@example.org</email></event>", "it is XML or HTML"),
        ("  <!DOCTYPE html><title>502</title>", "it is XML or HTML"),
        ("[object Object]", "it is what JavaScript makes of an object as text; send JSON.stringify of it"),
        (str({"type": "post.liked", "email": SECRET}), "its strings are in single quotes; JSON has double quotes"),
        ("[ 'ada@example.org' ]", "its strings are in single quotes; JSON has double quotes"),
        ('{"email": "ada@example.org",}', "a comma stands before a closing bracket (trailing comma at line 1 "),
        ('{"tags": ["ada@example.org", ]}', "a comma stands before a closing bracket (trailing comma at line 1 "),
        ("{email: 'ada@example.org'}", "names of fields should stand in double quotes (key must be a string at "),
        ('{"at": None, "email": "ada@example.org"}', "None is no JSON; JSON has null, true, false and numbers"),
        ('{"on": True, "email": "ada@example.org"}', "True is no JSON"),
        ('{"on":False}', "False is no JSON"),
        ('{"n": undefined}', "undefined is no JSON"),
        ("// ada@example.org\n{}", "it begins with a comment, and JSON has none"),
        ("/* ada@example.org */ {}", "it begins with a comment, and JSON has none"),
        (TEXT[:-1], "it ends too early: was it cut off? (EOF while parsing an object at line 1 "),
        (TEXT[:20], "it ends too early: was it cut off?"),
        ("ada@example.org", "expected value at line 1 column 1"),
        (b64encode(VALUE).decode(), "it is base64; send the bytes that it stands for"),
        (b64encode(b'[{"email": "ada@example.org"}]').decode() + "\n", "it is base64"),
    ],
)
def test_text_that_is_no_json_is_told_what_it_is(value: str, told: str) -> None:
    assert cause(value.encode()).startswith(told)


@pytest.mark.parametrize(
    "value",
    [b"\x0a\x06post-1\x12\x00", b"\x82\xa4type\xaapost.liked\x01\x02", b"\xac\xed\x00\x05sr\x00", b"\x80\x04\x95\x0e"],
)
def test_bytes_of_other_formats_are_not_taken_for_text(value: bytes) -> None:
    told = cause(value)
    assert told == "it is binary; send plain JSON" or told.startswith("it is not UTF-8, at byte ")


def test_an_avro_file_is_named() -> None:
    assert cause(b"Obj\x01\x04\x14avro.codec") == "it is an Avro file; send plain JSON"


@pytest.mark.parametrize("wrapped", [TEXT, "[" + TEXT + "]", "  " + TEXT])
def test_json_within_a_json_string_is_told_to_be_encoded_twice(wrapped: str) -> None:
    for headers in ([], BINARY):
        reason, message = refusal("domain-events", orjson.dumps(wrapped), headers)
        assert reason == "schema"
        assert message.startswith("this is JSON within a JSON string: it was encoded twice; send the object itself (")
        assert SECRET not in message


@pytest.mark.parametrize("text", ["hello", "{not json", "", "7", "[1"])
def test_another_string_is_a_string(text: str) -> None:
    assert refusal("domain-events", orjson.dumps(text)) == (
        "schema",
        f"the value: should be an object; came a string of {len(text)} characters",
    )


def test_what_kafka_connect_wraps_is_told_to_be_unwrapped() -> None:
    message = refusal("domain-events", {"schema": {"type": "struct"}, "payload": LIKED}, BINARY)[1]
    assert message.startswith("this is what Kafka Connect writes with schemas; set the converter's schemas.enable to")


def test_names_of_fields_in_a_message_are_bounded() -> None:
    body = {"k" * 100_000: 1, "postId": {"x" * 50_000: 2}}
    assert len(refusal("domain-events", body, BINARY)[1]) < 1_000


@given(
    value=st.one_of(
        st.binary(min_size=1, max_size=60),
        st.text(min_size=1, max_size=40).map(lambda text: text.encode(errors="replace")),
        st.builds(
            lambda beginning, rest: beginning + rest,
            st.sampled_from(
                [b"\0", b"\x03\0", b"\x1f\x8b", b"\xff\xfe", b"{'", b"a=", b"<", b"eyJ", b"{}\n{", b"Obj\x01"]
            ),
            st.binary(max_size=40),
        ),
    ),
    complaint=st.sampled_from(
        ["trailing characters at line 3 column 900", "expected value at line 99 column 0", "EOF while parsing", ""]
    ),
)
def test_every_value_has_a_cause(value: bytes, complaint: str) -> None:
    assert len(not_json.cause(value, complaint)) < 300


@pytest.mark.parametrize("half", ["\\ud83d", "\\ud83d and more", "\\ud83d\\u0041", "\\udc00", "\\ude00\\ud83d"])
def test_half_of_a_surrogate_pair_is_told_to_come_from_a_text_that_was_cut(half: str) -> None:
    assert cause(f'{{"email": "{SECRET} {half}"}}'.encode()).startswith(
        "half of a surrogate pair stands in a string: was it cut within an emoji? ("
    )


@pytest.mark.parametrize("number", ["9" * 5_000, "-" + "9" * 5_000, "1" + "0" * 100_000])
def test_a_number_of_thousands_of_digits_is_told(number: str) -> None:
    assert cause(f'{{"n": {number}}}'.encode()).startswith(
        "it holds a number of thousands of digits, which nothing can"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (BOM_UTF8, "it is a byte order mark, and nothing else"),
        (BOM_UTF8 * 3, "it is a byte order mark, and nothing else"),
        (BOM_UTF8 * 2 + VALUE, "several byte order marks stand before it; send none"),
    ],
)
def test_byte_order_marks_that_are_too_many_are_told(value: bytes, message: str) -> None:
    assert cause(value) == message


@pytest.mark.parametrize(
    "packed", [VALUE, BOM_UTF8 + VALUE, gzip.compress(VALUE, mtime=0), zlib.compress(VALUE, 5), bz2.compress(VALUE)]
)
def test_base64_is_told_also_in_lines_and_of_what_is_compressed(packed: bytes) -> None:
    for text in (b64encode(packed), encodebytes(packed), urlsafe_b64encode(packed)):
        assert cause(text) == "it is base64; send the bytes that it stands for"


@pytest.mark.parametrize(
    "text",
    [
        orjson.dumps(TEXT).decode(),
        TEXT[:-4],
        f"{TEXT}\n{TEXT}",
        f"\ufeff{TEXT}",
        f"  {TEXT}",
    ],
)
def test_an_object_that_was_encoded_again_is_told_also_where_it_was_cut_or_more_than_once(text: str) -> None:
    reason, message = refusal("domain-events", orjson.dumps(text))
    assert reason == "schema"
    assert message.startswith("this is JSON within a JSON string: it was encoded twice; send the object itself (")
    assert SECRET not in message


def test_an_object_that_was_encoded_as_bytes_is_told() -> None:
    message = refusal("domain-events", orjson.dumps(b64encode(VALUE).decode()))[1]
    assert message.startswith("this is base64 within a JSON string: the object was encoded as bytes; send the object")


@pytest.mark.parametrize("text", ["hello", "", "{'a': 1}", '"hello', "[a]", "a" * 40, "{name}"])
def test_a_string_that_is_no_json_is_just_a_string(text: str) -> None:
    assert refusal("domain-events", orjson.dumps(text))[1].startswith(
        "the value: should be an object; came a string of"
    )
