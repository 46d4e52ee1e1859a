"""The baseline of delivery: concurrent HTTP posts by httpx, and nothing else.

Input: the provider's URL, a number of mails, and how many requests run at once.
Output: as many requests of SendGrid's contract, whose body is made beforehand. No queue, no log, no retries.
"""

import argparse
import asyncio

import httpx
import orjson
import uvloop

from providers.http import client


async def post(http: httpx.AsyncClient, url: str, mails: int, at_once: int) -> None:
    """Post so many mails."""
    body = orjson.dumps(
        {
            "personalizations": [{"to": [{"email": "ada@reader.example"}]}],
            "from": {"email": "notifications@blog.example", "name": "The Blog"},
            "subject": "Ada answered your comment",
            "content": [
                {"type": "text/plain", "value": "That is the missing piece. " * 20},
                {"type": "text/html", "value": "<p>That is the missing piece.</p>" * 60},
            ],
            "custom_args": {"notificationId": "baseline", "key": "0" * 32},
        }
    )
    headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
    left = iter(range(mails))

    async def one_after_another() -> None:
        for _ in left:
            response = await http.post(f"{url}/v3/mail/send", content=body, headers=headers)
            response.raise_for_status()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(one_after_another())


async def main() -> None:
    """Post, and end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("mails", type=int)
    parser.add_argument("at_once", type=int)
    arguments = parser.parse_args()
    async with client() as http:
        await post(http, arguments.url, arguments.mails, arguments.at_once)


if __name__ == "__main__":
    uvloop.run(main())
