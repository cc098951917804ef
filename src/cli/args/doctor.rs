//! What `aop doctor` takes: the settings of the node that it looks at, and where that node answers.

use clap::Args;

use super::NodeArgs;

#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct DoctorArgs {
    #[command(flatten)]
    pub(in crate::cli) settings: NodeArgs,
    /// Address of the node; the default is where the one of the data folder answers, else that of --http
    #[arg(long, value_name = "URL", env = "AOP_NODE")]
    pub(in crate::cli) node: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
