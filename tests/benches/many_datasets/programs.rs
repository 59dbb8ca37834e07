//! Hearth's programs under load: their memory and CPU time.

use anyhow::{Context, Result};
use hearth_tests::cluster::Cluster;
use std::time::Duration;

#[path = "../report_load/cpu.rs"]
mod cpu;

/// The programs, each with its process.
pub(crate) struct Programs(Vec<(&'static str, u32)>);

impl Programs {
    /// The extender, the agent that lists and the other one.
    pub(crate) async fn of(cluster: &Cluster) -> Result<Self> {
        let extender = cluster.extenders.first().context("no extender runs")?;
        let mut programs = vec![("extender", extender.workload.pid().context("the extender has ended")?)];
        for agent in cluster.agents.values() {
            let lists = agent.metric("hearth_agent_lister_leading", &[]).await? == Some(1.0);
            programs.push((
                if lists { "agent that lists" } else { "other agent" },
                agent.pid().context("an agent has ended")?,
            ));
        }
        Ok(Self(programs))
    }

    /// CPU seconds so far.
    pub(crate) fn cpu(&self) -> Result<Vec<f64>> {
        self.0.iter().map(|(_, id)| cpu::cpu_seconds(&id.to_string())).collect()
    }

    pub(crate) fn print(&self, before: &[f64], after: &[f64], time: Duration) -> Result<()> {
        for ((name, id), (before, after)) in self.0.iter().zip(before.iter().zip(after)) {
            let share = (after - before) / time.as_secs_f64() * 100.0;
            println!("  {name:<18} {:>6} MiB resident, {share:>5.1} % of a core", resident_mib(*id)?);
        }
        Ok(())
    }
}

fn resident_mib(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib >> 10)
}
