//! CPU time of processes.

use anyhow::Context;

/// CPU seconds that a process has taken, its kernel time included; `self` or an id.
pub(crate) fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which may have spaces: utime and stime are the 12th and 13th.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let ticks: Result<Vec<u64>, _> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}
