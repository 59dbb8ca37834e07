//! The keeper's program.

use anyhow::Context;
use clap::Parser;
use hearth_keeper::{Keeper, MOST, listen};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;
use std::time::Duration;

/// How often it tries to listen until an agent has made it its directory.
const AGAIN: Duration = Duration::from_secs(1);
/// Descriptors besides those of mounts.
const OTHERS: u64 = 64;

/// Holds the descriptors of FUSE mounts while no node agent lives.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// The socket that agents connect to.
    #[arg(long, env = "HEARTH_KEEPER_SOCKET", default_value = "/run/hearth/keeper.sock")]
    socket: PathBuf,

    /// How long a mount is kept that no agent serves, such as 5m. Its readers wait all that time, and
    /// cannot be killed.
    #[arg(long, env = "HEARTH_KEEPER_LIMIT", default_value = "5m", value_parser = humantime::parse_duration)]
    limit: Duration,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    raise_descriptors().context("the limit of open files cannot be raised")?;
    let mut is_told = false;
    let listener = loop {
        match listen(&flags.socket) {
            Ok(listener) => break listener,
            // Nodes start it before or after the agent, which makes the directory its own.
            Err(error) if !is_told => {
                println!(
                    "{} waits for the node agent to make its directory: {error}",
                    flags.socket.display()
                );
                is_told = true;
            }
            Err(_) => {}
        }
        std::thread::sleep(AGAIN);
    };
    println!(
        "listening at {}; mounts are let go {:?} after their agent",
        flags.socket.display(),
        flags.limit
    );
    Keeper::new(listener, flags.limit).run().context("the socket failed")
}

/// Each mount is two descriptors, and a container may have only 1024 unless it asks.
fn raise_descriptors() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 2 * MOST as u64 + OTHERS;
    let current = limit.maximum.map_or(wanted, |most| most.min(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum })
}
