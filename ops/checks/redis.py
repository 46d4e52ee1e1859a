"""Checks whether Redis accepts every command that a worker uses.

Input: its URL and the prefix of the keys. Output: findings.
"""

from urllib.parse import urlsplit

from ops.checks.finding import Finding, State
from ops.checks.server import check_version
from ops.supported_versions import is_too_old
from sinks.redis.refusals import ADVICE
from sinks.servers import check_redis, describe_redis


async def check_redis_commands(url: str, prefix: str) -> list[Finding]:
    """Return whether Redis accepts each command that a worker uses; the version is asked for only if permitted."""
    check = await check_redis(url, prefix)
    findings = [
        Finding("Redis", State.PROBLEM, f"refuses {', '.join(commands)}: {kind}", ADVICE[kind])
        for kind, commands in check.problems.items()
    ]
    if check.denied:
        what = f"no permission to run {', '.join(check.denied)}: each worker has limits of its own, and more is missing"
        advice = f"as its administrator: ACL SETUSER {urlsplit(url).username or 'default'} {check.acl}"
        findings.append(Finding("Redis", State.PROBLEM, what, advice))
    if findings:
        return findings
    version = await describe_redis(url)
    well = Finding("Redis", State.WELL, f"{version}, accepts every command that a worker uses")
    return [well, *check_version("Redis", is_too_old("Redis", version))]
