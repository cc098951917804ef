//! The MCP server of a real node, asked byte by byte in both eras: tools, calls, changes, limits, guards, hostile text.

mod calls;
mod fixture;
mod guards;
mod process;
mod queues;
mod stdio;
mod tasks;
mod tools;
