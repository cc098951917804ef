#!/usr/bin/env python3
"""An MCP server over stdio for tests that tells everything it was started with: standard library only.

    tells.py ARGUMENT ...

Its tools: error fails in these words, fault answers with them as a protocol error, progress reports them and then fails.
"""

import json
import os
import sys

told = " ".join([*sys.argv, os.getcwd(), os.environ.get("SECRET", "")])
sys.stderr.write(told + "\n")


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(request, params):
    if params["name"] == "fault":
        return send({"id": request, "error": {"code": -32603, "message": told}})
    token = params.get("_meta", {}).get("progressToken")
    if params["name"] == "progress" and token is not None:
        report = {"progressToken": token, "progress": 1, "message": told}
        send({"method": "notifications/progress", "params": report})
    send({"id": request, "result": {"content": [{"type": "text", "text": told}], "isError": True}})


for line in sys.stdin:
    message = json.loads(line)
    method, request = message.get("method"), message.get("id")
    if request is None:
        continue
    if method == "initialize":
        info = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "tells", "version": "1"}}
        send({"id": request, "result": info})
    elif method == "tools/list":
        names = ["error", "fault", "progress"]
        send({"id": request, "result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}})
    elif method == "tools/call":
        call(request, message["params"])
    else:
        send({"id": request, "error": {"code": -32601, "message": f"no {method} here"}})
