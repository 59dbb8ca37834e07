//! The node agent's program.

use clap::Parser;
use hearth_node_agent::config::{Config, Flags};

fn main() -> anyhow::Result<()> {
    hearth_runtime::tls::install_provider();
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
