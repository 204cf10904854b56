use std::path::PathBuf;

/// What every service takes on its command line. A service with sub-commands flattens it into its own parser.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// The settings file [default: ./config.yaml where there is one]
    #[arg(long, value_name = "FILE", env = "DEVOPS_MCP_CONFIG", global = true)]
    pub config: Option<PathBuf>,

    /// Print the effective settings, secrets masked, and end
    #[arg(long)]
    pub print_config: bool,
}
