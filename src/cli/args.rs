//! What can be typed: commands, flags, and the examples that lead each help text.

mod agents;
mod calls;
mod doctor;
mod keys;
mod node;
#[cfg(feature = "lab")]
mod sim;
mod zones;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(super) use self::agents::{
    AdoptArgs, AgentCommand, AgentNamesArgs, AgentNewArgs, AgentsArgs, AgentsCommand, ImportArgs,
    RegisterArgs, agent_name,
};
pub(super) use self::calls::{
    CallArgs, QueueArgs, QueueCommand, TaskCancelArgs, TaskCommand, TaskListArgs, TaskShowArgs,
};
pub(super) use self::doctor::DoctorArgs;
pub(super) use self::keys::{GrantKind, KeysCommand, KeysGrantArgs, KeysNewArgs, KeysShowArgs};
pub(super) use self::node::NodeArgs;
#[cfg(feature = "lab")]
pub(super) use self::sim::{
    Format, SimCommand, SimCompareArgs, SimListArgs, SimReplayArgs, SimRunArgs, SimTheoryArgs,
};
pub(super) use self::zones::{
    ZoneCheckArgs, ZoneCommand, ZoneDelegateArgs, ZoneDnsArgs, ZoneInitArgs, ZoneJoinArgs, ZoneLeaveArgs,
};

/// Where a node answers unless something else is said.
pub(super) const NODE_URL: &str = "http://127.0.0.1:7400";

/// The missing DNS for agents: a peer-to-peer registry node and its client.
#[derive(Debug, Parser)]
#[command(
    name = "aop",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(before_help = "Examples:\n\
        \x20 aop dev                         # five nodes of three zones and sample agents to try\n\
        \x20 aop find \"summarise a pdf\"      # search the registry")]
#[command(
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 unreachable or timed out, 5 degraded."
)]
pub(super) struct Aop {
    /// Say less on stderr
    #[arg(short, long, global = true, display_order = 900)]
    pub(super) quiet: bool,
    /// Log more on stderr; twice for more
    #[arg(short, long, global = true, display_order = 901, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run five nodes of three zones with sample agents in one process, to try things
    #[command(before_help = "Examples:\n  aop dev\n  aop dev --agents ./agents --http 127.0.0.1:0")]
    Dev(DevArgs),
    /// Run a node
    #[command(before_help = "Examples:\n\
            \x20 aop node --agents ./agents\n\
            \x20 aop node --zone research.acme.org --bootstrap /ip4/192.0.2.1/tcp/7401/p2p/12D3…")]
    Node(Box<NodeCommand>),
    /// Search the registry; exits 5 if the answer may lack something
    #[command(before_help = "Examples:\n\
            \x20 aop find \"summarise a pdf\"\n\
            \x20 aop find --tag weather --zone acme.org --json\n\
            \x20 aop find emial to customers -v  # also why each result is there, and who answered for which zone")]
    Find(FindArgs),
    /// Show everything known of one agent
    #[command(
        before_help = "Examples:\n  aop show summarizer@research.acme.org\n  aop show summarizer --json"
    )]
    Show(ShowArgs),
    /// Call an agent; exits 1 if it failed, 4 if it did not answer
    #[command(before_help = "Examples:\n\
            \x20 aop call summarizer --task \"Summarise: …\"\n\
            \x20 aop call resize@acme.org '{\"width\": 100}' --timeout 60 --json\n\
            \x20 aop call trainer --async          # prints the id of a task; `aop task show ID --wait 60`\n\
            \x20 aop call --batch calls.jsonl      # one call a line, one answer a line")]
    Call(Box<CallArgs>),
    /// Calls that nobody waits for: how they stand, their answers, their end
    #[command(before_help = "Examples:\n  aop task list\n  aop task show 0f3a… --wait 60")]
    Task {
        #[command(subcommand)]
        command: TaskCommand,
    },
    /// What the agents of the node have to do: show it, pause it, resume it, clear it
    #[command(before_help = "Examples:\n  aop queue show\n  aop queue pause summarizer")]
    Queue {
        #[command(subcommand)]
        command: QueueCommand,
    },
    /// Register agents from agent.toml, server.json, server cards, A2A cards, OASF records, or arrays of them
    #[command(before_help = "Examples:\n\
            \x20 aop register agent.toml\n\
            \x20 curl -s https://example.org/servers.json | aop register --zone acme.org -")]
    Register(RegisterArgs),
    /// Take agents of this node out of the registry
    #[command(before_help = "Examples:\n  aop deregister summarizer\n  aop deregister a@acme.org b@acme.org")]
    Deregister(AgentNamesArgs),
    /// Import another registry, and list the imports; exits 4 if it does not answer
    #[command(before_help = "Examples:\n\
            \x20 aop import https://registry.modelcontextprotocol.io\n\
            \x20 aop import                        # what is imported, and how far it was read\n\
            \x20 aop import https://registry.example.org --remove")]
    Import(ImportArgs),
    /// List the agents that the node holds, or adopt those that its saved key found again
    #[command(before_help = "Examples:\n\
            \x20 aop agents --zone acme.org --json\n\
            \x20 aop agents adopt summarizer       # after restored_key: offered and renewed by this node again")]
    Agents(AgentsArgs),
    /// An agent of your own
    #[command(before_help = "Examples:\n\
            \x20 aop agent new word-count            # writes word-count.toml and word-count.py\n\
            \x20 aop agent new word-count --dir agents")]
    Agent {
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// Write the file that makes a listing callable through this host, after showing what it runs or asks
    #[command(before_help = "Examples:\n\
            \x20 aop adopt ai.exa/exa               # shows it, asks, writes ai-exa_exa.toml; runs nothing\n\
            \x20 aop adopt weather@acme.org --name weather --dir agents")]
    Adopt(AdoptArgs),
    /// Whom a name means here, where several owners have it
    #[command(before_help = "Examples:\n  aop owner list\n  aop owner trust summarizer 12D3…")]
    Owner {
        #[command(subcommand)]
        command: OwnerCommand,
    },
    /// Show the tree of zones as the node sees it
    #[command(before_help = "Examples:\n  aop zones\n  aop zones --json")]
    Zones(ClientArgs),
    /// Join and leave zones; keys and domains of zones
    #[command(
        before_help = "Examples:\n  aop zone join research.acme.org\n  aop zone init acme.org --out acme.key"
    )]
    Zone {
        #[command(subcommand)]
        command: ZoneCommand,
    },
    /// List the node's peers
    #[command(before_help = "Examples:\n  aop peers\n  aop peers --json")]
    Peers(ClientArgs),
    /// Show the health of the node; exits 5 if it is degraded
    #[command(before_help = "Examples:\n  aop status\n  aop status --node http://127.0.0.1:7500 --json")]
    Status(StatusArgs),
    /// Look at the node and what it stands on, and say what to mend; exits 5 if something is wrong
    #[command(before_help = "Examples:\n\
            \x20 aop doctor\n\
            \x20 aop doctor --config aop.toml    # also before the first start\n\
            \x20 aop doctor --json | jq '.checks[] | select(.status == \"fail\")'")]
    Doctor(Box<DoctorArgs>),
    /// Stream what happens until ctrl-c
    #[command(before_help = "Examples:\n  aop watch\n  aop watch --jsonl | jq .agent")]
    Watch(WatchArgs),
    /// Speak MCP over stdin and stdout, bridged to the running node, for desktop hosts
    #[command(before_help = "Examples:\n\
            \x20 aop mcp                         # the command a host is told to start\n\
            \x20 AOP_TOKEN=… aop mcp --node http://192.0.2.1:7400")]
    Mcp(McpArgs),
    /// Keys of nodes and owners
    #[command(before_help = "Examples:\n  aop keys show\n  aop keys new --out owner.key")]
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    #[cfg(feature = "lab")]
    /// The simulation harness: play scenarios, compare results, ask theory
    #[command(before_help = "Examples:\n\
            \x20 aop sim run simulations/*.toml\n\
            \x20 aop sim list                    # what there is to find out")]
    Sim {
        #[command(subcommand)]
        command: SimCommand,
    },
    /// The configuration of a node
    #[command(before_help = "Examples:\n  aop config show --config aop.toml\n  aop config check aop.toml")]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the script with which a shell completes commands and flags
    #[command(before_help = "Examples:\n\
            \x20 aop completions bash > ~/.local/share/bash-completion/completions/aop\n\
            \x20 aop completions fish | source")]
    Completions(CompletionsArgs),
    /// Write a manual page for each command
    #[command(hide = true, before_help = "Examples:\n  aop man --out man")]
    Man(ManArgs),
}

/// How to reach the node.
#[derive(Args, Clone, Debug)]
pub(super) struct ClientArgs {
    /// Address of the node
    #[arg(long, value_name = "URL", env = "AOP_NODE", default_value = NODE_URL)]
    pub(super) node: String,
    /// File with the node's token; or set AOP_TOKEN
    #[arg(long, value_name = "FILE", env = "AOP_HTTP_TOKEN_FILE")]
    pub(super) http_token_file: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

/// How the bridge reaches the node.
#[derive(Args, Debug)]
pub(super) struct McpArgs {
    /// Address of the node
    #[arg(long, value_name = "URL", env = "AOP_NODE", default_value = NODE_URL)]
    pub(super) node: String,
    /// File with the node's token; or set AOP_TOKEN
    #[arg(long, value_name = "FILE", env = "AOP_HTTP_TOKEN_FILE")]
    pub(super) http_token_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct FindArgs {
    /// Words; none matches everything
    #[arg(value_name = "QUERY")]
    pub(super) words: Vec<String>,
    /// Only this zone and those below it
    #[arg(long, value_name = "ZONE")]
    pub(super) zone: Option<String>,
    /// Only agents with this tag; repeat for several
    #[arg(long = "tag", value_name = "TAG")]
    pub(super) tags: Vec<String>,
    /// Only agents with this capability; repeat for several
    #[arg(long = "capability", value_name = "CAPABILITY")]
    pub(super) capabilities: Vec<String>,
    /// Only agents whose card says that data stays there
    #[arg(long, value_name = "RESIDENCY")]
    pub(super) residency: Option<String>,
    /// Most results, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) limit: u16,
    /// Where an earlier answer stopped
    #[arg(long, value_name = "CURSOR")]
    pub(super) cursor: Option<String>,
    /// Only what the node holds itself
    #[arg(long)]
    pub(super) local: bool,
    /// Nothing that others answered before: they are asked again
    #[arg(long)]
    pub(super) fresh: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Full name, bare name, id, or name in the original document
    #[arg(value_name = "AGENT", allow_hyphen_values = true, value_parser = agent_name)]
    pub(super) agent: String,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// With the version of every author that is held, which may be many
    #[arg(long)]
    pub(super) vector: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    /// Print one JSON document a line
    #[arg(long)]
    pub(super) jsonl: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct DevArgs {
    /// Agent file or folder, run by the first node
    #[arg(long, value_name = "PATH")]
    pub(super) agents: Vec<PathBuf>,
    /// Address of the first node's HTTP API; port 0 takes any free port
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7400")]
    pub(super) http: String,
    /// Print the ready line as JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Whose script
    #[arg(value_name = "SHELL")]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Folder that is there
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct NodeCommand {
    #[command(flatten)]
    pub(super) settings: NodeArgs,
    /// Print the ready line as JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum OwnerCommand {
    /// List the names whose owners are known, and who said so
    #[command(before_help = "Examples:\n  aop owner list\n  aop owner list --json")]
    List(ClientArgs),
    /// Let a name mean the agent of this owner from now on
    #[command(before_help = "Examples:\n\
            \x20 aop owner trust summarizer 12D3…\n\
            \x20 aop owner trust summarizer@research.acme.org 12D3… --json")]
    Trust(OwnerTrustArgs),
    /// Let a name mean nobody in particular: the next call by it decides anew
    #[command(before_help = "Examples:\n\
            \x20 aop owner forget summarizer\n\
            \x20 aop owner forget summarizer@research.acme.org")]
    Forget(OwnerForgetArgs),
}

#[derive(Args, Debug)]
pub(super) struct OwnerTrustArgs {
    /// Full name, or bare name
    #[arg(value_name = "NAME", allow_hyphen_values = true, value_parser = agent_name)]
    pub(super) name: String,
    /// PeerId of the owner, as `aop show` prints it
    #[arg(value_name = "OWNER")]
    pub(super) owner: String,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct OwnerForgetArgs {
    /// Full name, or bare name
    #[arg(value_name = "NAME", allow_hyphen_values = true, value_parser = agent_name)]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every effective setting and where it came from
    #[command(before_help = "Examples:\n\
            \x20 aop config show\n\
            \x20 AOP_NETWORK=lab aop config show --config aop.toml --json")]
    Show(Box<ConfigShowArgs>),
    /// Check configuration and agent files; exits 2 if one is wrong
    #[command(before_help = "Examples:\n  aop config check aop.toml\n  aop config check agents/*.toml")]
    Check(ConfigCheckArgs),
    /// Print a file with every setting and what it means, to begin with
    #[command(before_help = "Examples:\n  aop config init > aop.toml")]
    Init,
    /// Print the JSON Schema of the file, for editors
    #[command(before_help = "Examples:\n  aop config schema > aop.schema.json")]
    Schema,
}

#[derive(Args, Debug)]
pub(super) struct ConfigShowArgs {
    #[command(flatten)]
    pub(super) settings: NodeArgs,
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ConfigCheckArgs {
    /// Configuration files, or agent.toml files
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
}
