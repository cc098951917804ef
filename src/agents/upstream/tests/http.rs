//! MCP servers behind a URL: rmcp's own server on a loopback socket.
