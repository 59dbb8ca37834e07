//! The node agent's program.

use clap::Parser;
use hearth_node_agent::config::{Config, Flags};

fn main() -> anyhow::Result<()> {
    hearth_runtime::tls::install_provider();
    // Credentials and other people's data are in this memory: no core dump has them, whoever takes those.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let config = Config::load(&Flags::parse())?;
    config.check()?;
    hearth_runtime::logs::init(&config.log)?;
    hearth_node_agent::end_when_a_session_panics();
    tracing::info!("configuration:\n{}", hearth_runtime::config::to_yaml(&config));
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(hearth_node_agent::run::run(config))
}
