//! MCP: this node's agents as tools, and the whole registry through the discovery tools (paper sections 3 and 4).
