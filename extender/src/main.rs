//! The extender's command line.

use anyhow::Context;
use clap::Parser;
use hearth_extender::config::{Cli, Command};
use hearth_runtime::{logs, tls};

fn main() -> anyhow::Result<()> {
    tls::install_provider();
    let cli = Cli::parse();
    let config = cli.config()?;
    logs::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime cannot be started")?;
    match cli.command() {
        Command::Serve => runtime.block_on(hearth_extender::run::run(config)),
        Command::Certificates(arguments) => {
            runtime.block_on(hearth_extender::certificates::ensure(&config, &arguments))
        }
    }
}
