"""Python's clients: ``python.py LIBRARY METHOD URL [TYPE FILE]`` prints the status."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def with_requests(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> int:
    import requests

    return int(requests.request(method, url, data=body, headers=headers, timeout=90).status_code)


def with_httpx(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> int:
    import httpx

    return int(httpx.request(method, url, content=body, headers=headers).status_code)


def with_aiohttp(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> int:
    import aiohttp

    async def run() -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=body, headers=headers) as response,
        ):
            return int(response.status)

    return asyncio.run(run())


def with_urllib(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> int:
    try:
        with urlopen(Request(url, body, headers, method=method)) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def main(library: str, method: str, url: str, content_type: str = "", file: str = "") -> None:
    body = Path(file).read_bytes() if file else None
    headers = {"Content-Type": content_type} if content_type else {}
    print(globals()[f"with_{library}"](method, url, body, headers))


if __name__ == "__main__":
    main(*sys.argv[1:])
