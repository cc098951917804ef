"""An agent behind the official Python SDK of A2A, of its 1.x or its 0.3 line, as a server on a free port.

Prints its port as JSON once it is bound. The text of a message says what becomes of its task.
"""

import asyncio
import json
import socket
from importlib.metadata import version

import uvicorn
from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

IS_OLD = version("a2a-sdk").startswith("0.3.")

if IS_OLD:
    from a2a.server.apps import A2AStarletteApplication
    from a2a.server.request_handlers import DefaultRequestHandler
    from a2a.types import AgentCapabilities, AgentCard, AgentSkill, Part, TextPart
    from a2a.utils import new_agent_text_message, new_task

    def part(text):
        return Part(root=TextPart(text=text))

else:
    from a2a.helpers.proto_helpers import new_task_from_user_message as new_task
    from a2a.helpers.proto_helpers import new_text_message as new_agent_text_message
    from a2a.helpers.proto_helpers import new_text_part as part
    from a2a.server.request_handlers import DefaultRequestHandler
    from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
    from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill


class Agent(AgentExecutor):
    def __init__(self):
        self.go = asyncio.Event()

    async def execute(self, context, queue):
        task = context.current_task or new_task(context.message)
        if not context.current_task:
            await queue.enqueue_event(task)
        updates = TaskUpdater(queue, task.id, task.context_id)
        await updates.start_work()
        text = context.get_user_input()
        if text == "fail":
            return await updates.failed(new_agent_text_message("no ink"))
        if text == "ask":
            return await updates.requires_input(new_agent_text_message("which city?"))
        if text == "tell":
            await updates.add_artifact([part("one, ")], artifact_id="told", append=False, last_chunk=False)
            await self.go.wait()
            self.go.clear()
            await updates.add_artifact([part("two")], artifact_id="told", append=True, last_chunk=True)
        else:
            await updates.add_artifact([part(f"heard {text}")])
        await updates.complete()

    async def cancel(self, context, queue):
        await TaskUpdater(queue, context.task_id, context.context_id).cancel()

    async def let_go(self, _request):
        """Whoever has the first piece of what is told asks for the rest."""
        self.go.set()
        return PlainTextResponse("")


ABOUT = {
    "name": "Server of a test",
    "description": "Says what it heard",
    "version": "1.0.0",
    "capabilities": AgentCapabilities(streaming=True),
    "default_input_modes": ["text/plain"],
    "default_output_modes": ["text/plain"],
    "skills": [AgentSkill(id="hear", name="Hear", description="Hears", tags=["test"])],
}


def old_app(base, agent):
    card = AgentCard(**ABOUT, url=f"{base}/", protocol_version="0.3.0", preferred_transport="JSONRPC")
    return A2AStarletteApplication(card, DefaultRequestHandler(agent, InMemoryTaskStore())).build()


def new_app(base, agent):
    """A card for each way to ask, so that nobody chooses another."""
    routes = []
    ways = {"rpc": ("JSONRPC", "1.0"), "rpc03": ("JSONRPC", "0.3"), "rest": ("HTTP+JSON", "1.0")}
    for way, (binding, protocol) in ways.items():
        interface = AgentInterface(url=f"{base}/{way}", protocol_binding=binding, protocol_version=protocol)
        card = AgentCard(**ABOUT, supported_interfaces=[interface])
        handler = DefaultRequestHandler(agent, InMemoryTaskStore(), card)
        routes += create_agent_card_routes(card, card_url=f"/{way}.json")
        if binding == "JSONRPC":
            routes += create_jsonrpc_routes(handler, f"/{way}", enable_v0_3_compat=protocol == "0.3")
        else:
            routes += create_rest_routes(handler, path_prefix=f"/{way}")
    return Starlette(routes=routes)


async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    agent = Agent()
    app = (old_app if IS_OLD else new_app)(f"http://127.0.0.1:{port}", agent)
    app.router.routes.append(Route("/go", agent.let_go))
    print(json.dumps({"port": port}), flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener])


asyncio.run(main())
