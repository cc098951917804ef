#!/usr/bin/env python3
"""A small MCP server over stdio for tests: standard library only, the handshake of 2025-06-18.

    server.py [--gate FILE] [--hang] [--pages N] [--broken] [--cursor empty|circle] [--prompts] [--record FILE] TOOL ...

It leaves at once if the gate file exists. With --prompts it has no tools and counts its starts in the record. Its tools,
each offered if named: echo, structured, repeated, image, null, fail, fault, pid, progress, wait, deaf, pings, crash, endless, spawn,
grow, variable, trace, task, slow_task, failing_task, huge, many=N, and those of ANSWERS, whose answers are wrong.
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
parser.add_argument("--cursor")
parser.add_argument("--prompts", action="store_true")
parser.add_argument("--record")
parser.add_argument("tools", nargs="*")
options = parser.parse_args()

sys.stderr.write("the test server speaks\n")
sys.stdout.reconfigure(encoding="latin-1")
if options.gate and os.path.exists(options.gate):
    sys.exit(7)

names = []
for tool in options.tools:
    many = tool.partition("many=")[2]
    names += [f"tool_{n:04}" for n in range(int(many))] if many else [tool]


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


# What is said in place of an answer, with the request's id for ID.
ANSWERS = {
    "half_emoji": r'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"cut \ud83d"}]}}',
    "nan": '{"jsonrpc":"2.0","result":{"content":[],"structuredContent":{"v":NaN}},"id":ID}',
    "truncated": '{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"te',
    "scalar": '{"jsonrpc":"2.0","id":ID,"result":5}',
    "bytes": '{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"\xff"}]}}',
    "null_id": '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no paper"}}',
    "no_id": '{"jsonrpc":"2.0","error":{"code":-32600,"message":"no paper"}}',
    "other_id": '{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no paper"}}',
    "other_answer": '{"jsonrpc":"2.0","id":900000,"result":{"content":[]}}',
    "broken_id": '{"jsonrpc":"2.0","result":{"content":[',
    "deep": '{"jsonrpc":"2.0","id":ID,"result":{"structuredContent":{"a":' + "[" * 300 + "]" * 300 + "}}}",
}


def record(text):
    if options.record:
        with open(options.record, "a") as file:
            file.write(text + "\n")


def describe(name):
    schema = {"type": "object", "properties": {"task": {"type": "string"}}}
    return {"name": name, "description": f"Does {name}", "inputSchema": schema}


def tools_list(params):
    if options.cursor == "empty" and params.get("cursor") is not None:
        return None
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
    start = int(params.get("cursor") or 0) if not options.cursor else 0
    result = {"tools": tools[start : start + size]}
    if start + size < len(tools):
        result["nextCursor"] = str(start + size)
    if options.cursor:
        result["nextCursor"] = "" if options.cursor == "empty" else options.cursor
    return result


def text(words, **more):
    return {"content": [{"type": "text", "text": words}], **more}


polls = {}


def task_of(task, kind):
    """A task is done, or has failed, when it has been asked for three times; a slow one never."""
    count = polls[task] = polls.get(task, -1) + 1
    state = {"resultType": kind, "taskId": task, "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z"}
    state |= {"status": "working", "statusMessage": f"asked {count} times", "ttlMs": None, "pollIntervalMs": 1}
    if count < 3 or task.startswith("slow"):
        return state
    if task.startswith("failing"):
        return {**state, "status": "failed", "error": {"code": -32000, "message": "no paper"}}
    return {**state, "status": "completed", "result": text("made in time")}


def call(name, arguments, params, request):
    if name == "echo":
        return text(json.dumps(arguments, sort_keys=True))
    if name == "structured":
        return text("not this", structuredContent={"sum": 3})
    if name == "repeated":
        return text('{"sum": 3}', structuredContent={"sum": 3})
    if name == "image":
        return {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}
    if name == "null":
        return text("the text", structuredContent=None)
    if name == "variable":
        return text(os.environ.get("AOP_TEST_GIVEN", "unset"))
    if name == "trace":
        return text(params.get("_meta", {}).get("traceparent", "none"))
    if name in ("task", "slow_task", "failing_task"):
        return task_of(f"{name}-{request}", "task")
    if name == "huge":
        return text("x" * arguments["bytes"])
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
        capabilities = {"prompts": {}} if options.prompts else {"tools": {"listChanged": True}}
        if options.prompts:
            record("started")
        result = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
        send({"id": request, "result": result})
    elif method == "tools/list" and options.prompts:
        send({"id": request, "error": {"code": -32601, "message": "Method not found"}})
    elif method == "tools/list" and (result := tools_list(params)) is None:
        send({"id": request, "error": {"code": -32602, "message": "Invalid cursor"}})
    elif method == "tools/list":
        send({"id": request, "result": result})
    elif method == "tasks/get":
        send({"id": request, "result": task_of(params["taskId"], "complete")})
    elif method == "tasks/cancel":
        record(f"cancelled {params['taskId']}")
        send({"id": request, "result": {"resultType": "complete"}})
    elif method == "tools/call" and params["name"] in ANSWERS:
        sys.stdout.write("a line of the program itself\n" + ANSWERS[params["name"]].replace("ID", str(request)) + "\n")
        sys.stdout.flush()
    elif method == "tools/call" and params["name"] == "fault":
        send({"id": request, "error": {"code": -32603, "message": "inner fault"}})
    elif method == "tools/call":
        result = call(params["name"], params.get("arguments"), params, request)
        if result is not None:
            send({"id": request, "result": result})
    else:
        send({"id": request, "error": {"code": -32601, "message": f"no {method} here"}})
