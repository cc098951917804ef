#!/usr/bin/env python3
"""A small MCP server over stdio for tests: standard library only, the handshake of 2025-06-18.

    server.py [--gate FILE] [--hang] [--pages N] [--broken] [--record FILE] TOOL ...

It leaves at once if the gate file exists. Its tools, each offered if named: echo, structured, image, fail, fault, pid,
progress, wait, deaf, pings, crash, endless, spawn, grow, many=N.
"""

import argparse
import json
import os
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--gate")
parser.add_argument("--hang", action="store_true")
parser.add_argument("--pages", type=int, default=1)
parser.add_argument("--broken", action="store_true")
parser.add_argument("--record")
parser.add_argument("tools", nargs="*")
options = parser.parse_args()

sys.stderr.write("the test server speaks\n")
if options.gate and os.path.exists(options.gate):
    sys.exit(7)

names = []
for tool in options.tools:
    many = tool.partition("many=")[2]
    names += [f"tool_{n:04}" for n in range(int(many))] if many else [tool]


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def record(text):
    if options.record:
        with open(options.record, "a") as file:
            file.write(text + "\n")


def describe(name):
    schema = {"type": "object", "properties": {"task": {"type": "string"}}}
    return {"name": name, "description": f"Does {name}", "inputSchema": schema}


def tools_list(params):
    tools = [describe(name) for name in names]
    if options.broken:
        tools += [
            {"name": "broken_text", "inputSchema": "none"},
            {"name": "broken_type", "inputSchema": {"type": 5}, "outputSchema": []},
            {"name": "broken_size", "inputSchema": {"type": "object", "title": "x" * 20_000}, "description": "y" * 9_000},
            {"name": "broken_away", "inputSchema": {"$ref": "http://127.0.0.1:1/schema.json"}},
            {"name": "", "inputSchema": {"type": "object"}},
            {"name": "n" * 200, "inputSchema": {"type": "object"}},
            {"inputSchema": {"type": "object"}},
            17,
        ]
    size = -(-len(tools) // options.pages)
    start = int(params.get("cursor") or 0)
    result = {"tools": tools[start : start + size]}
    if start + size < len(tools):
        result["nextCursor"] = str(start + size)
    return result


def text(words, **more):
    return {"content": [{"type": "text", "text": words}], **more}


def call(name, arguments, params, request):
    if name == "echo":
        return text(json.dumps(arguments, sort_keys=True))
    if name == "structured":
        return text("not this", structuredContent={"sum": 3})
    if name == "image":
        return {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}
    if name == "fail":
        return text("no more paper", isError=True)
    if name == "pid":
        return text(str(os.getpid()))
    if name == "progress":
        token = params["_meta"]["progressToken"]
        for step in range(1, 6):
            report = {"progressToken": token, "progress": step, "total": 5, "message": f"step {step}"}
            send({"method": "notifications/progress", "params": report})
        return text("done")
    if name == "wait":
        record(f"waiting {request}")
        return None
    if name == "deaf":
        time.sleep(600)
    while name == "pings":
        send({"id": 1, "method": "ping"})
    if name == "crash":
        os._exit(3)
    if name == "endless":
        while True:
            sys.stdout.write("x" * 65_536)
    if name == "spawn":
        child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return text(str(child.pid))
    if name == "grow":
        names.append("grown")
        send({"method": "notifications/tools/list_changed"})
        return text("grown")
    return text(f"{name} answers")


for line in sys.stdin:
    message = json.loads(line)
    method, params, request = message.get("method"), message.get("params") or {}, message.get("id")
    if options.hang or method == "notifications/initialized":
        continue
    if method == "notifications/cancelled":
        record(f"cancelled {params['requestId']}")
    elif method == "initialize":
        info = {"name": "test", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        result = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
        send({"id": request, "result": result})
    elif method == "tools/list":
        send({"id": request, "result": tools_list(params)})
    elif method == "tools/call" and params["name"] == "fault":
        send({"id": request, "error": {"code": -32603, "message": "inner fault"}})
    elif method == "tools/call":
        result = call(params["name"], params.get("arguments"), params, request)
        if result is not None:
            send({"id": request, "result": result})
    else:
        send({"id": request, "error": {"code": -32601, "message": f"no {method} here"}})
