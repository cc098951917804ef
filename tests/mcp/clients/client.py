"""One run of the official Python client, of its 2.x or its 1.x line, against a node.

Takes its plan as a JSON argument and prints one JSON line of findings per check. What the findings must be is decided
by the test that starts this script.
"""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

PATIENCE = 60
"""Seconds that anything here may take; what waits longer is broken."""

TICK = 0.02
"""Seconds between two looks at a file that another process writes."""


class Modern:
    """The client of 2.x, which speaks every revision."""

    def __init__(self, client, notified):
        self.client = client
        self.notified = notified

    @staticmethod
    @asynccontextmanager
    async def connect(plan):
        from mcp import Client, StdioServerParameters

        notified = asyncio.Queue()

        async def handle(message):
            if type(message).__name__ == "ToolListChangedNotification":
                notified.put_nowait(True)

        server = plan["url"]
        if plan.get("command"):
            server = StdioServerParameters(command=plan["command"][0], args=plan["command"][1:])
        async with Client(server, mode=plan["era"], message_handler=handle) as client:
            yield Modern(client, notified)

    def version(self):
        return self.client.protocol_version

    def server(self):
        return self.client.server_info

    async def page(self, cursor):
        page = await self.client.list_tools(cursor=cursor, cache_mode="bypass")
        return [tool.name for tool in page.tools], page.next_cursor

    async def call(self, tool, arguments, report=None):
        result = await self.client.call_tool(tool, arguments, progress_callback=report)
        return {"error": bool(result.is_error), "structured": result.structured_content, "text": text(result)}

    async def cancelled_call(self, tool, arguments, started):
        call = asyncio.ensure_future(self.call(tool, arguments))
        await appears(started, call)
        call.cancel()
        await asyncio.wait([call])
        return call.cancelled()

    async def resources(self):
        return [str(resource.uri) for resource in (await self.client.list_resources()).resources]

    async def read(self, uri):
        return [content.model_dump(mode="json") for content in (await self.client.read_resource(uri)).contents]

    @asynccontextmanager
    async def changes(self):
        """Yields what waits for the next change of the list of tools, by the means of the revision."""
        if self.version() < "2026":
            yield self.notified.get
        else:
            async with self.client.listen(tools_list_changed=True) as events:
                yield events.__anext__


class Handshake:
    """The client of 1.x, which knows the revisions with a handshake only."""

    def __init__(self, session, opened, notified):
        self.session = session
        self.opened = opened
        self.notified = notified

    @staticmethod
    @asynccontextmanager
    async def connect(plan):
        from mcp import ClientSession, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client

        notified = asyncio.Queue()

        async def handle(message):
            if type(getattr(message, "root", None)).__name__ == "ToolListChangedNotification":
                notified.put_nowait(True)

        if plan.get("command"):
            server = StdioServerParameters(command=plan["command"][0], args=plan["command"][1:])
            streams = stdio_client(server)
        else:
            streams = streamable_http_client(plan["url"])
        async with streams as (read, write, *_):
            async with ClientSession(read, write, message_handler=handle) as session:
                yield Handshake(session, await session.initialize(), notified)

    def version(self):
        return str(self.opened.protocolVersion)

    def server(self):
        return self.opened.serverInfo

    async def page(self, cursor):
        from mcp.types import PaginatedRequestParams

        page = await self.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        return [tool.name for tool in page.tools], page.nextCursor

    async def call(self, tool, arguments, report=None):
        result = await self.session.call_tool(tool, arguments, progress_callback=report)
        return {"error": bool(result.isError), "structured": result.structuredContent, "text": text(result)}

    async def cancelled_call(self, tool, arguments, started):
        from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

        # The session counts its requests and does not tell of a cancelled one by itself.
        request = self.session._request_id
        call = asyncio.ensure_future(self.call(tool, arguments))
        await appears(started, call)
        cancelled = CancelledNotification(params=CancelledNotificationParams(requestId=request))
        await self.session.send_notification(ClientNotification(cancelled))
        call.cancel()
        await asyncio.wait([call])
        return True

    async def resources(self):
        return [str(resource.uri) for resource in (await self.session.list_resources()).resources]

    async def read(self, uri):
        from pydantic import AnyUrl

        return [content.model_dump(mode="json") for content in (await self.session.read_resource(AnyUrl(uri))).contents]

    @asynccontextmanager
    async def changes(self):
        yield self.notified.get


def text(result):
    return "".join(getattr(block, "text", "") for block in result.content)


def tell(check, **findings):
    print(json.dumps({"check": check, **findings}), flush=True)


async def appears(path, call):
    """Returns when the file is there; a call that ends before it is a failure."""
    while not Path(path).exists():
        if call.done():
            raise RuntimeError(f"the call ended before its work started: {call.result()}")
        await asyncio.sleep(TICK)


async def is_gone(pid):
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(TICK)


async def all_pages(connection):
    pages, cursor = [], None
    while True:
        names, cursor = await connection.page(cursor)
        pages.append(names)
        if cursor is None:
            return pages


async def check_all(connection, plan):
    server = connection.server()
    tell("connect", version=connection.version(), server=server and server.name)

    pages = await all_pages(connection)
    tell("list", names=[name for page in pages for name in page], pages=len(pages))

    for check in plan["calls"]:
        tell(check["check"], **await connection.call(check["tool"], check["arguments"]))

    try:
        await connection.call("no_such_tool", {})
        tell("unknown", code=None)
    except Exception as error:
        tell("unknown", code=getattr(getattr(error, "error", None), "code", None), message=str(error))

    reports = []

    async def report(progress, total, message):
        reports.append([progress, total])

    slow = plan["slow"]
    result = await connection.call(slow["tool"], slow["arguments"], report)
    tell("progress", reports=reports, **result)

    lingering = plan["lingering"]
    ended = await connection.cancelled_call(lingering["tool"], lingering["arguments"], lingering["started"])
    # While the client is still there: its leaving would end the work as well.
    tell("cancel", ended=ended, gone=await is_gone(int(Path(lingering["started"]).read_text())))

    resources = await connection.resources()
    tell("resources", uris=resources, contents=await connection.read(resources[0]) if resources else [])

    added = plan["added"]
    async with connection.changes() as changed:
        Path(added["path"]).write_text(added["text"])
        events, names = 0, []
        while added["tool"] not in names:
            await changed()
            events += 1
            names = [name for page in await all_pages(connection) for name in page]
        tell("changed", events=events)


async def main():
    plan = json.loads(sys.argv[1])
    client = Modern if version("mcp").startswith("2.") else Handshake
    async with asyncio.timeout(PATIENCE):
        async with client.connect(plan) as connection:
            await check_all(connection, plan)
    tell("end")


asyncio.run(main())
