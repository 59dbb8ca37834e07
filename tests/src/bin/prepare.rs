//! Builds and downloads what the tests and the demo need, with progress on the terminal: inside a test it would be silent.

use anyhow::Result;
use hearth_tests::{binaries, cache};

fn main() -> Result<()> {
    binaries::prepare()?;
    println!("the test cluster's programs are in {}", cache::dir()?.display());
    Ok(())
}
