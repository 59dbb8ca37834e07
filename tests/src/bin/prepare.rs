//! Builds and downloads what the tests need, or, with the argument `demo`, what the demo needs, with progress on the terminal: inside a test it would be silent.

use anyhow::{Result, bail};
use hearth_tests::{binaries, cache};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => binaries::prepare()?,
        Some("demo") => binaries::prepare_demo()?,
        Some(other) => bail!("the argument is {other:?}, and demo or none is allowed"),
    }
    println!("the test cluster's programs are in {}", cache::dir()?.display());
    Ok(())
}
