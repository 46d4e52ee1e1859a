"""Classifies MongoDB's errors: a transient fault, a document that can never be stored, or a bug.

Input: an error. Output: whether to retry (`is_transient`), whether a document's content caused it (`blames_content`),
and the message for its producer (`refusal_of_error`, `refusal_of_fault`). The codes are those of
MongoDB's `src/mongo/base/error_codes.yml` and of the driver specification for retryable writes
(https://github.com/mongodb/specifications/blob/master/source/retryable-writes/retryable-writes.md).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bson.errors import BSONError
from pymongo.errors import BulkWriteError, ConnectionFailure, DocumentTooLarge, OperationFailure, PyMongoError

TRANSIENT_CODES = frozenset(
    {
        # The driver specification's list of retryable errors.
        6,  # HostUnreachable
        7,  # HostNotFound
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        134,  # ReadConcernMajorityNotAvailableYet
        189,  # PrimarySteppedDown
        262,  # ExceededTimeLimit
        9001,  # SocketException
        10058,  # LegacyNotPrimary
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        # error_codes.yml, categories Interruption and ExceededTimeLimitError: killed, or out of time.
        24,  # LockTimeout
        50,  # MaxTimeMSExpired
        202,  # NetworkInterfaceExceededTimeLimit
        237,  # CursorKilled
        279,  # ClientDisconnect
        281,  # TransactionCoordinatorSteppingDown
        282,  # TransactionCoordinatorReachedAbortDecision
        290,  # TransactionExceededLifetimeLimitSeconds
        355,  # InterruptedDueToStorageChange
        407,  # PooledConnectionAcquisitionExceededTimeLimit
        11601,  # Interrupted
        # Categories RetriableError and SystemOverloadedError.
        358,  # InternalTransactionNotSupported
        402,  # ResourceExhausted
        406,  # MigrationBlockingOperationCoordinatorCleaningUp
        412,  # UpdatesStillPending
        433,  # AdmissionQueueOverflow
        449,  # RateLimitExceeded
        # Category WriteConcernError: too few members answer, for now.
        64,  # WriteConcernTimeout
        100,  # UnsatisfiableWriteConcern
        # Categories SnapshotError and StaleShardVersionError: the server looks again.
        150,  # StaleEpoch
        239,  # SnapshotTooOld
        246,  # SnapshotUnavailable
        249,  # StaleDbVersion
        250,  # StaleChunkHistory
        272,  # MigrationConflict
        13388,  # StaleConfig
        # Of no category: another writer is at it, or there is no room just now.
        43,  # CursorNotFound
        46,  # LockBusy
        112,  # WriteConflict
        117,  # ConflictingOperationInProgress
        133,  # FailedToSatisfyReadPreference
        215,  # DatabaseDropPending
        216,  # ElectionInProgress
        225,  # TransactionTooOld
        251,  # NoSuchTransaction
        264,  # TooManyFilesOpen
        267,  # PreparedTransactionInProgress
        365,  # TemporarilyUnavailable
        371,  # UserWritesBlocked
        14031,  # OutOfDiskSpace
    }
)

_TRANSIENT_LABELS = (
    "RetryableWriteError",
    "TransientTransactionError",
    "UnknownTransactionCommitResult",
    "SystemOverloadedError",
)

_DUPLICATE_KEY = 11000
_DOCUMENT_VALIDATION_FAILURE = 121

_TOO_LARGE_CODES = frozenset(
    {
        257,  # TransactionTooLarge
        388,  # TransactionTooLargeForCache
        10334,  # BSONObjectTooLarge
        17419,  # a document that an update makes too large
        17420,  # the same, of a replacement
    }
)

_COMMAND_CONTENT_CODES = _TOO_LARGE_CODES | {
    15,  # Overflow: nested too deeply
    22,  # InvalidBSON
    378,  # NonConformantBSON
}
"""Errors of a whole command that one document in it may cause."""

_CONTENT_CODES = _COMMAND_CONTENT_CODES | {
    52,  # DollarPrefixedFieldName, in an _id
    53,  # InvalidIdField
    _DOCUMENT_VALIDATION_FAILURE,
    171,  # CannotIndexParallelArrays
    _DUPLICATE_KEY,
    16755,  # no geometry, in a field with a 2dsphere index
    16766,  # an array, in a field with a hashed index
    17261,  # a text index's `language` that is no string
    17262,  # a text index's `language` that is unknown
}
"""All errors of a single write that are known to be due to its own document. Any other is nobody's content: a server's
new code must not turn good records into dead letters."""

_STORED_CODES = frozenset(
    {
        2,  # BadValue: $push or $addToSet where there is no array
        14,  # TypeMismatch: $inc, $add or $setUnion of something else
        28,  # PathNotViable: a field inside of what is no object
        _DOCUMENT_VALIDATION_FAILURE,
        16554,  # $add, until MongoDB 6.0
        17043,  # $setUnion, until MongoDB 6.0
        17419,  # an update that makes the document too large
    }
)
"""Errors of an update that are due to the stored document, which somebody else has changed."""

_WORDS = {
    15: "is nested too deeply: MongoDB stores 180 levels",
    52: "has an _id that MongoDB takes from nobody",
    53: "has an _id that MongoDB takes from nobody",
    171: "has arrays in two fields of one index; only one of them may hold an array",
    16755: "has no geometry in a field with a 2dsphere index",
    16766: "has an array in a field with a hashed index",
    17261: "has a field 'language' that is no string; the text index reads it as the text's language",
    17262: "has a field 'language' that names no language the text index knows",
}


class Refusal(NamedTuple):
    """Why a document will never be stored, in words that its producer can act on; holds no value of the document.

    Attributes:
        reason: `refused-by-store` or `too-large`.
        message: What is wrong, and in which field where MongoDB says so.
    """

    reason: str
    message: str


_TOO_LARGE = Refusal("too-large", "is too large: MongoDB stores documents of up to 16 MB")


class UnknownRefusalError(Exception):
    """MongoDB refused a write for a reason that is not known to be a record's content; the message says what to do."""

    def __init__(self, collection: str, error: OperationFailure) -> None:
        # MongoDB's own message is left out, as it may quote documents.
        found = list(_codes(error))
        codes = ", ".join(dict.fromkeys(found)) or "no error code"
        super().__init__(
            f"MongoDB refused to write to {collection} with {codes}. This is not known to be the content of a record, "
            "so nothing was committed and no dead letter was sent. Run `inkstream doctor` and look into MongoDB's log; "
            "codes are listed at https://www.mongodb.com/docs/manual/reference/error-codes/. Once the cause is fixed, "
            "start the worker again: it continues with the same records."
        )


def _codes(error: OperationFailure) -> Iterator[str]:
    details = error.details or {}
    if isinstance(error, BulkWriteError):
        yield from (f"error {fault.get('code')}" for fault in details.get("writeErrors", ()))
    else:
        name = details.get("codeName")
        yield f"error {error.code}" + (f" ({name})" if name else "")


def is_transient(error: BaseException) -> bool:
    """Say whether the same write, unchanged, may succeed later: MongoDB is down, failing over, full or too slow.

    A bulk write may if one of its errors may: as every write is idempotent, trying all of it again does no harm.
    Missing rights, a wrong password and everything unknown are not transient.
    """
    if isinstance(error, BulkWriteError):
        details: Mapping[str, Any] = error.details
        return (
            bool(details.get("writeConcernErrors"))
            or any(fault.get("code") in TRANSIENT_CODES for fault in details.get("writeErrors", ()))
            or any(error.has_error_label(label) for label in _TRANSIENT_LABELS)
        )
    if not isinstance(error, PyMongoError):
        return False
    return (
        isinstance(error, ConnectionFailure)
        or error.timeout
        or any(error.has_error_label(label) for label in _TRANSIENT_LABELS)
        or (isinstance(error, OperationFailure) and error.code in TRANSIENT_CODES)
    )


def blames_content(error: BaseException) -> bool:
    """Say whether an error that stopped a whole write is due to what one of its documents holds.

    Such is what the driver can't encode (a null byte in a key, an integer beyond 64 bits, half a surrogate pair,
    endless nesting, more than 16 MB), and what MongoDB refuses for its content.
    """
    if isinstance(error, BSONError | DocumentTooLarge | OverflowError | RecursionError | UnicodeEncodeError):
        return True
    if is_transient(error):
        return False
    if isinstance(error, BulkWriteError):
        faults = error.details.get("writeErrors", ())
        return bool(faults) and all(blames_document(fault) and not is_same_id(fault) for fault in faults)
    return isinstance(error, OperationFailure) and error.code in _COMMAND_CONTENT_CODES


def blames_document(fault: Mapping[str, Any]) -> bool:
    """Say whether one of a bulk write's `writeErrors` is due to what its document holds."""
    return fault.get("code") in _CONTENT_CODES or _is_too_large(fault)


def blames_stored_document(fault: Mapping[str, Any]) -> bool:
    """Say whether one of a bulk write's `writeErrors` may be due to the stored document that it was to update."""
    return fault.get("code") in _STORED_CODES


def is_same_id(fault: Mapping[str, Any]) -> bool:
    """Say whether one of a bulk write's `writeErrors` means that there is a document with this `_id` already."""
    # A very long reply leaves out the details.
    return fault.get("code") == _DUPLICATE_KEY and fault.get("keyPattern", {"_id": 1}) == {"_id": 1}


def refusal_of_error(error: BaseException) -> Refusal:
    """Say why a single document can't be stored, from the error that writing it alone raised."""
    if isinstance(error, BulkWriteError):
        return refusal_of_fault(error.details["writeErrors"][0])
    if isinstance(error, DocumentTooLarge):
        return _TOO_LARGE
    if isinstance(error, OperationFailure):
        return _refusal_of_code(error.code)
    if isinstance(error, OverflowError):
        return Refusal("refused-by-store", "holds a whole number beyond 64 bits, which MongoDB can't store")
    if isinstance(error, RecursionError):
        return _refusal_of_code(15)
    if isinstance(error, UnicodeEncodeError):
        return Refusal("refused-by-store", "holds half of a surrogate pair, which is no valid text")
    return Refusal(
        "refused-by-store", "holds what MongoDB can't: a null byte in a field name, or a type it does not know"
    )


def refusal_of_fault(fault: Mapping[str, Any]) -> Refusal:
    """Say why a document can't be stored, from its entry in a bulk write's `writeErrors`.

    MongoDB's own message is left out, as it may quote the document.
    """
    code: int | None = fault.get("code")
    if code == _DOCUMENT_VALIDATION_FAILURE:
        details = fault.get("errInfo", {}).get("details", {})
        problems = dict.fromkeys(_problems(details.get("schemaRulesNotSatisfied", ()), path=""))
        return Refusal("refused-by-store", "; ".join(problems) or "does not pass the collection's validator")
    if code == _DUPLICATE_KEY:
        fields = ", ".join(fault.get("keyPattern", ()))
        return Refusal("refused-by-store", f"has the same {fields} as another document, which a unique index forbids")
    if _is_too_large(fault):
        return _TOO_LARGE
    return _refusal_of_code(code)


def _is_too_large(fault: Mapping[str, Any]) -> bool:
    # MongoDB 6.0 has no code of its own for an insert that is too large.
    return fault.get("code") == 2 and "too large" in fault.get("errmsg", "")


def _refusal_of_code(code: int | None) -> Refusal:
    if code in _TOO_LARGE_CODES:
        return _TOO_LARGE
    return Refusal("refused-by-store", _WORDS.get(code or 0, f"is refused by MongoDB with error {code}"))


def _problems(rules: Iterable[Mapping[str, Any]], path: str) -> Iterator[str]:
    """Turn MongoDB's account of a failed `$jsonSchema` into lines such as `device.type should be one of ...`.

    The account's format: https://www.mongodb.com/docs/manual/core/schema-validation/handle-invalid-documents/
    """
    for rule in rules:
        match rule:
            case {"operatorName": "properties", "propertiesNotSatisfied": properties}:
                for field in properties:
                    yield from _problems(field.get("details", ()), f"{path}.{field['propertyName']}".lstrip("."))
            case {"operatorName": "items", "itemIndex": index, "details": details}:
                yield from _problems(details, f"{path}[{index}]")
            case {"operatorName": "anyOf", "schemasNotSatisfied": [{"details": details}, *_]}:
                # The first alternative is the whole document, the second its placeholder.
                yield from _problems(details, path)
            case {"operatorName": "required", "missingProperties": missing}:
                yield from (f"{f'{path}.{name}'.lstrip('.')} is missing" for name in missing)
            case {"operatorName": "bsonType", "specifiedAs": {"bsonType": wanted}, "consideredType": given}:
                yield f"{path or 'the document'} should be of type {wanted} and is {given}"
            case {"operatorName": "enum", "specifiedAs": {"enum": values}}:
                yield f"{path} should be one of {', '.join(map(str, values))}"
            case {"operatorName": operator}:
                yield f"{path or 'the document'} does not satisfy {operator}"
