#!/usr/bin/env python3
"""Writes aop.json beside it: a dashboard in Grafana's classic JSON, which versions 9 to 13 load.

Everything a panel is stands in ROWS. A test holds each query against what a node exposes.
"""

import json
from pathlib import Path

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
NODE = 'job=~"$job",instance=~"$instance"'
# A call between two nodes is counted at both: here once.
ASKED = NODE + ',side!="host"'
WIDTH = 24


def rate(name, labels=NODE):
    return f"rate({name}{{{labels}}}[$__rate_interval])"


def quantiles(name, shares, labels=NODE):
    """A line for each share of all observations."""
    buckets = f"sum by (le) ({rate(name + '_bucket', labels)})"
    return [(f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}") for share in shares]


def slowest(name, by):
    """The 99th percentile of each of them."""
    buckets = f"sum by (le, {by}) ({rate(name + '_bucket')})"
    return [(f"histogram_quantile(0.99, {buckets})", "{{" + by + "}}")]


def stat(title, unit, *targets):
    return ("stat", title, unit, targets)


def graph(title, unit, *targets):
    return ("timeseries", title, unit, targets)


ZONES = "{{instance}} {{zone}}"
FAILED = ASKED + ',code!=""'
ROWS = {
    "Now": [
        stat("Nodes that answer", "none", ('sum(up{job=~"$job"})', "nodes")),
        stat("Agents", "none", (f"max by (zone) (aop_registry_agents{{{NODE}}})", "{{zone}}")),
        stat("Calls a second", "reqps", (f"sum({rate('aop_calls_total', ASKED)})", "calls")),
        stat(
            "Calls that fail",
            "percentunit",
            (f"(sum({rate('aop_calls_total', FAILED)}) or vector(0)) / clamp_min(sum({rate('aop_calls_total', ASKED)}), 1e-9)", "failed"),
        ),
        stat("Searches, p99", "s", *quantiles("aop_find_duration_seconds", [0.99])),
        stat("Problems", "none", (f"sum(aop_problems{{{NODE}}})", "problems")),
    ],
    "Calls": [
        graph("Calls by how they end", "reqps", (f"sum by (outcome) ({rate('aop_calls_total', ASKED)})", "{{outcome}}")),
        graph("Time of calls", "s", *quantiles("aop_call_duration_seconds", [0.5, 0.95, 0.99], ASKED)),
        graph(
            "Failures by code",
            "reqps",
            (f"topk(8, sum by (code) ({rate('aop_calls_total', FAILED)}))", "{{code}}"),
        ),
        graph("Under way", "none", (f"sum by (side) (aop_calls_in_flight{{{NODE}}})", "{{side}}")),
        graph("Wait for a place of an agent", "s", *quantiles("aop_call_wait_seconds", [0.5, 0.99])),
        graph("Offers to hosts", "reqps", (f"sum by (result) ({rate('aop_call_offers_total')})", "{{result}}")),
        graph("Bytes of calls over the mesh", "Bps", (f"sum by (direction) ({rate('aop_call_bytes_total')})", "{{direction}}")),
    ],
    "Agents": [
        graph(
            "Runs that succeed, the ten worst",
            "percentunit",
            (f"bottomk(10, aop:agent_calls:success_ratio_rate15m{{{NODE}}})", "{{instance}} {{agent}}"),
        ),
        graph(
            "Runs, the ten busiest",
            "reqps",
            (f"topk(10, sum by (agent) ({rate('aop_agent_calls_total')}))", "{{agent}}"),
        ),
        graph(
            "Time of runs, p95 of the ten slowest",
            "s",
            (
                f"topk(10, histogram_quantile(0.95, sum by (le, agent) ({rate('aop_agent_call_duration_seconds_bucket')})))",
                "{{agent}}",
            ),
        ),
        graph("At work and waiting", "none", (f"sum by (stage) (aop_agent_calls_in_flight{{{NODE}}})", "{{stage}}")),
        graph("States", "none", (f"sum by (state) (aop_agents{{{NODE}}})", "{{state}}")),
    ],
    "Search": [
        graph("Time of searches", "s", *quantiles("aop_find_duration_seconds", [0.5, 0.95, 0.99])),
        graph("Zones that were asked", "reqps", (f"sum by (status) ({rate('aop_find_zones_total')})", "{{status}}")),
        graph("Looks into the caches", "reqps", (f"sum by (cache, result) ({rate('aop_cache_requests_total')})", "{{cache}} {{result}}")),
    ],
    "Registry": [
        graph("Records", "none", (f"aop_registry_records{{{NODE}}}", ZONES)),
        graph("Bytes of records", "bytes", (f"aop_registry_bytes{{{NODE}}}", ZONES)),
        graph("Members that answer", "none", (f"aop_zone_members{{{NODE}}}", ZONES)),
        graph("Members that answer no more", "none", (f"aop_members_unreachable{{{NODE}}}", ZONES)),
        graph("Lag behind writes", "s", (f"aop_registry_lag_seconds{{{NODE}}}", ZONES)),
        graph("Since the last comparison", "s", (f"time() - aop_registry_last_sync_timestamp_seconds{{{NODE}}}", ZONES)),
        graph(
            "Different registries among nodes at rest (1 is well)",
            "none",
            ('aop:registry_fingerprints:count_at_rest{job=~"$job"}', "{{zone}}"),
        ),
        graph("Comparisons", "ops", (f"sum by (result) ({rate('aop_sync_sessions_total')})", "{{result}}")),
        graph("From a write to here", "s", *quantiles("aop_record_propagation_seconds", [0.5, 0.99])),
        graph("Records that came", "ops", (f"sum by (via, result) ({rate('aop_records_total')})", "{{via}} {{result}}")),
        graph("Writes to disk, p99", "s", *slowest("aop_store_write_duration_seconds", "instance")),
    ],
    "Mesh": [
        graph("Peers", "none", (f"aop_peers{{{NODE}}}", "{{instance}}")),
        graph(
            "Bytes to and from peers",
            "Bps",
            (f"sum by (direction, transport) ({rate('aop_network_bytes_total')})", "{{direction}} {{transport}}"),
        ),
        graph("Connections", "none", (f"sum by (direction) (aop_connections{{{NODE}}})", "{{direction}}")),
        graph("Round trips to peers", "s", *quantiles("aop_peer_rtt_seconds", [0.5, 0.95])),
        graph("Dials", "ops", (f"sum by (result) ({rate('aop_dials_total')})", "{{result}}")),
        graph("Gossip", "ops", (f"sum by (verdict) ({rate('aop_gossip_verdicts_total')})", "{{verdict}}")),
        graph("Refused under a limit", "ops", (f"sum by (reason) ({rate('aop_refused_total')})", "{{reason}}")),
        graph("Clocks of the peers, minus the own", "s", (f"aop_clock_offset_seconds{{{NODE}}}", "{{instance}}")),
    ],
    "Clients": [
        graph(
            "HTTP requests",
            "reqps",
            (f"sum by (http_route) ({rate('http_server_request_duration_seconds_count')})", "{{http_route}}"),
        ),
        graph("HTTP, p99 by route", "s", *slowest("http_server_request_duration_seconds", "http_route")),
        graph(
            "MCP requests",
            "reqps",
            (f"sum by (mcp_method_name) ({rate('mcp_server_operation_duration_seconds_count')})", "{{mcp_method_name}}"),
        ),
        graph("HTTP refused under a limit", "ops", (f"sum by (reason) ({rate('aop_http_refused_total')})", "{{reason}}")),
    ],
    "Process": [
        graph("Processor", "percentunit", (rate("process_cpu_seconds_total"), "{{instance}}")),
        graph("Memory", "bytes", (f"process_resident_memory_bytes{{{NODE}}}", "{{instance}}")),
        graph("Open files and sockets", "none", (f"process_open_fds{{{NODE}}}", "{{instance}}")),
        graph("Turns of the task that decides, p99", "s", *slowest("aop_driver_turn_seconds", "instance")),
        graph("Requests that wait for it", "none", (f"aop_driver_requests_waiting{{{NODE}}}", "{{instance}}")),
        graph("Problems", "none", (f"sum by (code) (aop_problem{{{NODE}}}) > 0", "{{code}}")),
    ],
}


def panels():
    """Rows and panels, from left to right and from the top."""
    placed, y = [], 0
    for title, row in ROWS.items():
        placed.append({"id": len(placed) + 1, "type": "row", "title": title, "collapsed": False, "panels": []})
        placed[-1]["gridPos"] = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        x, y = 0, y + 1
        for kind, name, unit, targets in row:
            width, height = (4, 4) if kind == "stat" else (8, 8)
            if x + width > WIDTH:
                x, y = 0, y + height
            placed.append(panel(len(placed) + 1, kind, name, unit, targets))
            placed[-1]["gridPos"] = {"h": height, "w": width, "x": x, "y": y}
            x += width
        y += height
    return placed


def panel(number, kind, title, unit, targets):
    shown = [
        {"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend, "datasource": SOURCE}
        for at, (expr, legend) in enumerate(targets)
    ]
    defaults = {"unit": unit} if title.startswith("Clocks") else {"unit": unit, "min": 0}
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
        "targets": shown,
    }


def variable(name, query):
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


DASHBOARD = {
    "uid": "aop-nodes",
    "title": "aop nodes",
    "tags": ["aop"],
    "schemaVersion": 39,
    "version": 1,
    "editable": True,
    "graphTooltip": 1,
    "refresh": "30s",
    "time": {"from": "now-1h", "to": "now"},
    "timezone": "browser",
    "templating": {
        "list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
            variable("job", "label_values(aop_build_info, job)"),
            variable("instance", 'label_values(aop_build_info{job=~"$job"}, instance)'),
        ]
    },
    "panels": panels(),
    "annotations": {"list": []},
    "links": [],
}

if __name__ == "__main__":
    Path(__file__).with_name("aop.json").write_text(json.dumps(DASHBOARD, indent=1) + "\n")
