"""Checks MongoDB's replica set.

Input: a client. Output: findings.
"""

from ops.checks.finding import Finding, State
from ops.checks.server import check_version
from ops.supported_versions import is_too_old
from sinks.mongo.client import Mongo
from sinks.servers import describe_mongo


async def check_mongodb(mongo: Mongo) -> list[Finding]:
    """Return whether MongoDB is a replica set with a primary, of a supported version."""
    server = await describe_mongo(mongo)
    if server.replica_set is None:
        advice = "start mongod with --replSet: error groups need transactions, which need a replica set"
        return [Finding("MongoDB", State.PROBLEM, f"{server.version}, a server without a replica set", advice)]
    what = f"{server.version}, replica set {server.replica_set} of {server.members}"
    if server.primary is None:
        advice = "check rs.status(): a majority of the members must be up"
        return [Finding("MongoDB", State.PROBLEM, f"{what}, without a primary: nothing can be written", advice)]
    findings = [Finding("MongoDB", State.WELL, f"{what}, primary {server.primary}")]
    return [*findings, *check_version("MongoDB", is_too_old("MongoDB", server.version))]
