"""One run of the official Python SDK of A2A, of its 1.x or its 0.3 line, as a client of agents.

Takes its exchanges as a JSON argument and prints one JSON line of findings for each. What the findings must be is
decided by the test that starts this script.
"""

import asyncio
import json
import sys
import uuid
from importlib.metadata import version
from pathlib import Path

import httpx

PATIENCE = 60
"""Seconds that anything here may take; what waits longer is broken."""


compact = json.JSONEncoder(separators=(",", ":")).encode
"""A document as text, as short as it can be."""


class Heard:
    """What an agent said to one message."""

    def __init__(self, go):
        self.go = go
        self.kinds = []
        self.pieces = []
        self.whole = {}
        self.task = None
        self.state = None
        self.message = None

    def hear_artifact(self, artifact, text, append):
        self.pieces.append(text)
        self.whole[artifact] = self.whole.get(artifact, "") + text if append else text
        if self.go and len(self.pieces) == 1:
            # The agent waits for it with the rest: a stream that is kept back until its end never gets there.
            Path(self.go).touch()

    def told(self):
        text = "".join(self.whole.values())
        return {"kinds": self.kinds, "pieces": self.pieces, "text": text, "state": self.state, "message": self.message}


class Line1:
    """The client of 1.x: JSON-RPC and HTTP+JSON of 1.0."""

    def __init__(self, http):
        self.http = http

    async def exchange(self, asked, heard):
        from a2a.client import ClientConfig, create_client
        from a2a.helpers.proto_helpers import new_data_message, new_text_message
        from a2a.types.a2a_pb2 import GetTaskRequest, Role, SendMessageRequest

        config = ClientConfig(
            httpx_client=self.http, streaming=asked["stream"], supported_protocol_bindings=[asked["binding"]]
        )
        client = await create_client(asked["agent"], config)
        new_message = new_data_message if asked["document"] else new_text_message
        message = new_message(asked["document"] or asked["text"], role=Role.ROLE_USER)
        async for event in client.send_message(SendMessageRequest(message=message)):
            self.hear(event, heard)
        again = await client.get_task(GetTaskRequest(id=heard.task))
        return self.state(again.status), "".join(self.text(artifact) for artifact in again.artifacts)

    def hear(self, event, heard):
        from a2a.helpers.proto_helpers import get_message_text

        kind = event.WhichOneof("payload")
        said = getattr(event, kind)
        heard.kinds.append(kind.removesuffix("_update"))
        if kind == "task":
            heard.task = said.id
            for artifact in said.artifacts:
                heard.hear_artifact(artifact.artifact_id, self.text(artifact), False)
        if kind == "artifact_update":
            heard.hear_artifact(said.artifact.artifact_id, self.text(said.artifact), said.append)
        if kind in ("task", "status_update"):
            heard.state = self.state(said.status)
            heard.message = get_message_text(said.status.message)

    @staticmethod
    def text(artifact):
        from a2a.helpers.proto_helpers import get_data_parts, get_text_parts

        return "".join(get_text_parts(artifact.parts)) + "".join(map(compact, get_data_parts(artifact.parts)))

    @staticmethod
    def state(status):
        from a2a.types.a2a_pb2 import TaskState

        return TaskState.Name(status.state).removeprefix("TASK_STATE_").lower()


class Line03:
    """The client of 0.3, which knows JSON-RPC of 0.3."""

    def __init__(self, http):
        self.http = http

    async def exchange(self, asked, heard):
        from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
        from a2a.types import DataPart, Message, Part, Role, TaskQueryParams, TextPart

        card = await A2ACardResolver(self.http, asked["agent"]).get_agent_card()
        config = ClientConfig(
            httpx_client=self.http, streaming=asked["stream"], supported_transports=[asked["binding"]]
        )
        client = ClientFactory(config).create(card)
        part = DataPart(data=asked["document"]) if asked["document"] else TextPart(text=asked["text"])
        message = Message(role=Role.user, message_id=str(uuid.uuid4()), parts=[Part(root=part)])
        async for task, update in client.send_message(message):
            self.hear(task, update, heard)
        again = await client.get_task(TaskQueryParams(id=heard.task))
        return again.status.state.value, "".join(self.text(artifact) for artifact in again.artifacts or [])

    def hear(self, task, update, heard):
        from a2a.utils import get_message_text

        kind = update.kind.removesuffix("-update") if update else "task"
        heard.kinds.append(kind)
        heard.task = task.id
        if kind == "task":
            for artifact in task.artifacts or []:
                heard.hear_artifact(artifact.artifact_id, self.text(artifact), False)
        if kind == "artifact":
            heard.hear_artifact(update.artifact.artifact_id, self.text(update.artifact), update.append)
        status = (update if kind == "status" else task).status
        heard.state = status.state.value
        heard.message = get_message_text(status.message) if status.message else ""

    @staticmethod
    def text(artifact):
        from a2a.utils import get_data_parts, get_text_parts

        return "".join(get_text_parts(artifact.parts)) + "".join(map(compact, get_data_parts(artifact.parts)))


async def main():
    line = Line03 if version("a2a-sdk").startswith("0.3.") else Line1
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(timeout=PATIENCE) as http:
        for asked in json.loads(sys.argv[1]):
            heard = Heard(asked.get("go"))
            findings = {"check": asked["check"]}
            try:
                state, text = await line(http).exchange(asked, heard)
                findings |= {**heard.told(), "again": [state, text]}
            except Exception as error:
                findings |= {**heard.told(), "error": f"{type(error).__name__}: {error}"}
            print(json.dumps(findings), flush=True)


asyncio.run(main())
