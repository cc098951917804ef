"""The ARD registry of agentic-ard-kit on a free port, which it prints as JSON once it is bound.

Takes the arguments of `ard-registry`, which tells of no port but that of its arguments.
"""

import json
import sys

from ard_kit import registry


class Told(registry.ThreadingHTTPServer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        print(json.dumps({"port": self.server_port}), flush=True)


registry.ThreadingHTTPServer = Told
sys.argv[1:1] = ["--port", "0"]
sys.exit(registry.main())
