"""Checks PostgreSQL's server.

Input: its URL and the namespace. Output: findings.
"""

from ops.checks.finding import Finding, State
from ops.checks.server import check_version
from ops.supported_versions import is_too_old
from sinks.postgres import pool


async def check_postgresql(url: str, namespace: str) -> list[Finding]:
    """Return whether PostgreSQL accepts writes and has a supported version."""
    server = await pool.describe(url, namespace)
    what = f"{server.version}, database {server.database}, role {server.role}"
    findings = [Finding("PostgreSQL", State.WELL, what)]
    if server.is_standby:
        advice = "connect to the primary: target_session_attrs=read-write"
        findings = [Finding("PostgreSQL", State.PROBLEM, f"{what}, a standby, which accepts no writes", advice)]
    findings += check_version("PostgreSQL", is_too_old("PostgreSQL", server.version))
    return findings
