from typing import Any

import pytest
from bson.errors import InvalidDocument
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from sinks.mongo.errors import (
    Refusal,
    UnknownRefusalError,
    blames_content,
    blames_stored_document,
    is_same_id,
    is_transient,
    refusal_of_error,
    refusal_of_fault,
)


def bulk_error(*codes: int, write_concern: bool = False) -> BulkWriteError:
    details: dict[str, Any] = {"writeErrors": [{"index": place, "code": code} for place, code in enumerate(codes)]}
    details["writeConcernErrors"] = [{"code": 64, "errmsg": "timed out"}] if write_concern else []
    return BulkWriteError(details)


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NetworkTimeout("timed out"),
        NotPrimaryError("not primary"),
        ServerSelectionTimeoutError("no primary"),
        WaitQueueTimeoutError("no connection free"),
        ExecutionTimeout("operation exceeded time limit", 50),
        WTimeoutError("waiting for replication timed out", 64),
        WriteConcernError("not enough members", 100),
        OperationFailure("WriteConflict", 112),
        OperationFailure("interrupted at shutdown", 11600),
        OperationFailure("disk full", 14031),
        OperationFailure("unknown", 99999, {"errorLabels": ["RetryableWriteError"]}),
        OperationFailure("unknown", 99999, {"errorLabels": ["TransientTransactionError"]}),
        bulk_error(write_concern=True),
        bulk_error(11000, write_concern=True),
        bulk_error(11000, 11602),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'code', '')}",
)
def test_a_fault_that_passes_is_transient_and_blames_no_document(error: PyMongoError) -> None:
    assert is_transient(error)
    assert not blames_content(error)


@pytest.mark.parametrize(
    "error",
    [
        OperationFailure("Authentication failed", 18),
        OperationFailure("not authorized", 13),
        OperationFailure("Transaction numbers are only allowed on a replica set member", 20),
        OperationFailure("no such command", 59),
        OperationFailure("who knows", 99999),
        ConfigurationError("no such option"),
        InvalidOperation("client is closed"),
        bulk_error(166),
        bulk_error(11000),
        # Of what an update meets in a stored document, and of codes that are new or of a server's own.
        bulk_error(2),
        bulk_error(9),
        bulk_error(14),
        bulk_error(16),
        bulk_error(28),
        bulk_error(16554),
        bulk_error(17043),
        bulk_error(31013),
        bulk_error(99999),
        bulk_error(121, 99999),
        KeyError("a bug"),
        TypeError("a bug"),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'code', '')}",
)
def test_a_bug_is_neither_transient_nor_any_document_s_fault(error: Exception) -> None:
    assert not is_transient(error)
    assert not blames_content(error)


@pytest.mark.parametrize(
    "error",
    [
        InvalidDocument("key must not contain a null byte"),
        DocumentTooLarge("too large"),
        OverflowError("int too big"),
        RecursionError("too deep"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        OperationFailure("nested too deeply", 15),
        OperationFailure("too large", 10334),
        bulk_error(121),
        bulk_error(17262),
        *(bulk_error(code) for code in (52, 53, 171, 10334, 16755, 16766, 17261, 17419)),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'code', '')}",
)
def test_what_a_document_holds_is_its_own_fault_and_never_passes(error: Exception) -> None:
    assert blames_content(error)
    assert not is_transient(error)
    assert refusal_of_error(error).message


def test_only_the_same_id_makes_a_duplicate() -> None:
    assert is_same_id({"code": 11000, "keyPattern": {"_id": 1}})
    assert is_same_id({"code": 11000})
    assert not is_same_id({"code": 11000, "keyPattern": {"entityId": 1}})
    assert not is_same_id({"code": 121})


def test_a_refusal_never_quotes_the_document() -> None:
    secret = "reader@example.org"
    fault = {"code": 99999, "errmsg": f"cannot take {secret}", "op": {"email": secret}}
    assert refusal_of_fault(fault) == Refusal("refused-by-store", "is refused by MongoDB with error 99999")
    assert secret not in refusal_of_error(InvalidDocument(f"cannot encode {secret}")).message


def test_a_failed_validation_is_told_field_by_field_without_values() -> None:
    wrong_type = {
        "operatorName": "bsonType",
        "specifiedAs": {"bsonType": "string"},
        "consideredValue": 5,
        "consideredType": "int",
    }
    item = {"operatorName": "properties", "propertiesNotSatisfied": [{"propertyName": "id", "details": [wrong_type]}]}
    rules = [
        {
            "operatorName": "properties",
            "propertiesNotSatisfied": [
                {"propertyName": "list", "details": [{"operatorName": "items", "itemIndex": 2, "details": [item]}]}
            ],
        },
        {"operatorName": "required", "specifiedAs": {"required": ["a", "b"]}, "missingProperties": ["b"]},
        {"operatorName": "maxLength", "reason": "too long", "consideredValue": "secret"},
    ]
    fault = {"code": 121, "errInfo": {"details": {"operatorName": "$jsonSchema", "schemaRulesNotSatisfied": rules}}}
    assert refusal_of_fault(fault).message == (
        "list[2].id should be of type string and is int; b is missing; the document does not satisfy maxLength"
    )


def test_a_failed_validation_without_details_is_still_a_refusal() -> None:
    assert refusal_of_fault({"code": 121}).message == "does not pass the collection's validator"


def test_what_is_too_large_has_a_reason_of_its_own() -> None:
    assert refusal_of_fault({"code": 2, "errmsg": "object to insert too large. size in bytes: 1"}).reason == "too-large"
    assert refusal_of_error(DocumentTooLarge("16777217 bytes")).reason == "too-large"


@pytest.mark.parametrize("code", [2, 14, 28, 121, 16554, 17043, 17419])
def test_what_stops_an_update_of_a_changed_document_may_be_that_document(code: int) -> None:
    assert blames_stored_document({"code": code})


@pytest.mark.parametrize("code", [13, 20, 66, 112, 166, 11000, 11600, 99999, None])
def test_no_other_error_is_a_stored_documents(code: int | None) -> None:
    assert not blames_stored_document({"code": code})


def test_an_unknown_refusal_says_the_code_the_collection_and_what_to_do_and_quotes_no_document() -> None:
    error = BulkWriteError({"writeErrors": [{"code": 99999, "errmsg": "no ada@example.org", "op": {"to": "ada"}}]})
    message = str(UnknownRefusalError("systemLogs", error))
    assert "systemLogs" in message
    assert "error 99999" in message
    assert "inkstream doctor" in message
    assert "ada" not in message
    named = UnknownRefusalError("systemLogs", OperationFailure("no", 166, {"codeName": "CommandNotSupportedOnView"}))
    assert "error 166 (CommandNotSupportedOnView)" in str(named)
