//! The scheduler's calls while 5,000 agents report every two seconds over TLS, beside
//! a server in the same process that only reads the body; and what a report costs.
//!
//! `cargo bench -p hearth-tests --bench report_load`
//!
//! The server is a process of its own, started from this same program: its CPU time
//! can be told from the agents'. On a small machine both share the cores.

#[path = "../scheduler_calls/client.rs"]
mod client;
mod cpu;
#[path = "../scheduler_calls/fixture.rs"]
mod fixture;
mod fleet;
mod server;
mod tokens;

use anyhow::Context;
use client::Client;
use cpu::cpu_seconds;
use fixture::{NODES, Random, asks, body, node_name};
use fleet::Fleet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::Ready;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Set in the process that serves.
const SERVES: &str = "HEARTH_BENCH_SERVES";
const RUNS: usize = 5;
/// Without calls, for what reports alone cost.
const QUIET: Duration = Duration::from_secs(10);
/// With calls.
const BUSY: Duration = Duration::from_secs(20);
/// Different pods that ask in turn.
const PODS: usize = 400;
/// Longest pause between calls: kube-scheduler works on its own between them.
const PAUSE_MICROS: usize = 4_000;

/// What one run measured.
struct Run {
    reports_per_second: f64,
    server_micros_per_report: f64,
    calls: usize,
    /// p50 and p99.
    prioritize: [Duration; 2],
    null: [Duration; 2],
}

impl Run {
    fn ratio(&self) -> f64 {
        self.prioritize[1].as_secs_f64() / self.null[1].as_secs_f64()
    }
}

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One descriptor per agent on either side.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("RLIMIT_NOFILE")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match std::env::var_os(SERVES) {
        Some(_) => runtime.block_on(server::run()),
        None => runtime.block_on(measure()),
    }
}

async fn measure() -> anyhow::Result<()> {
    eprintln!("making 100 datasets of 100,000 files, each held at random by 100 of {NODES} nodes…");
    let mut server = Command::new(std::env::current_exe()?)
        .env(SERVES, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = server.stdout.take().context("the server has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).await?;
    let ready: Ready = serde_json::from_str(&line).context("the server did not start")?;
    eprintln!("connecting {NODES} agents…");
    let mut fleet = Fleet::start(&ready).await?;
    let mut caller = Caller::new(&ready)?;
    // Not counted: every pod once, and the agents spread over their period.
    caller = caller.call_for(Duration::from_secs(5)).await?.0;

    println!("{NODES} agents over TLS, {RUNS} runs, {} s of calls in each", BUSY.as_secs());
    println!(
        "{:>3} {:>10} {:>11} {:>7} {:>16} {:>16} {:>16} {:>16} {:>7}",
        "run",
        "reports/s",
        "CPU/report",
        "calls",
        "prioritize p50",
        "prioritize p99",
        "null p50",
        "null p99",
        "× null"
    );
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        let (run, again) = one_run(&server, &fleet, caller).await?;
        caller = again;
        fleet.check()?;
        let micros = |time: Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6);
        println!(
            "{number:>3} {:>10.0} {:>8.0} µs {:>7} {:>16} {:>16} {:>16} {:>16} {:>7.2}",
            run.reports_per_second,
            run.server_micros_per_report,
            run.calls,
            micros(run.prioritize[0]),
            micros(run.prioritize[1]),
            micros(run.null[0]),
            micros(run.null[1]),
            run.ratio()
        );
        runs.push(run);
    }
    let median = |value: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "medians: {:.0} µs of the server's CPU per report, prioritize's p99 {:.2} × the null server's",
        median(|run| run.server_micros_per_report),
        median(Run::ratio)
    );
    Ok(())
}

async fn one_run(server: &Child, fleet: &Fleet, caller: Caller) -> anyhow::Result<(Run, Caller)> {
    let id = server.id().context("the server has ended")?.to_string();
    let (reports, cpu, started) = (fleet.reports(), cpu_seconds(&id)?, Instant::now());
    tokio::time::sleep(QUIET).await;
    let (reports, cpu) = ((fleet.reports() - reports) as f64, cpu_seconds(&id)? - cpu);
    let seconds = started.elapsed().as_secs_f64();
    let (caller, mut prioritize, mut null) = caller.call_for(BUSY).await?;
    let percentiles = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        [0.5, 0.99].map(|part| times[((times.len() - 1) as f64 * part) as usize])
    };
    let run = Run {
        reports_per_second: reports / seconds,
        server_micros_per_report: cpu / reports * 1e6,
        calls: prioritize.len(),
        prioritize: percentiles(&mut prioritize),
        null: percentiles(&mut null),
    };
    Ok((run, caller))
}

/// The scheduler's side: on a thread of its own, or it would wait for its agents'
/// turns and not for the server.
struct Caller {
    addresses: [(std::net::SocketAddr, &'static str); 2],
    bodies: Vec<Vec<u8>>,
    random: Random,
}

type Times = Vec<Duration>;

impl Caller {
    fn new(ready: &Ready) -> anyhow::Result<Self> {
        let names: Vec<String> = (0..NODES).map(node_name).collect();
        let mut random = Random::new(2);
        let bodies = (0..PODS).map(|_| body(&asks(&mut random), "preferred", &names)).collect();
        Ok(Self { addresses: [(ready.scheduler, "/prioritize"), (ready.null, "/read")], bodies, random })
    }

    /// Calls one after the other for so long; the times of prioritize and of the null server.
    async fn call_for(self, time: Duration) -> anyhow::Result<(Self, Times, Times)> {
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.calls(time))
        })
        .await?
    }

    async fn calls(mut self, time: Duration) -> anyhow::Result<(Self, Times, Times)> {
        let [(ours, prioritize), (null, read)] = self.addresses;
        let mut ours = Client::connect(ours, prioritize).await?;
        let mut null = Client::connect(null, read).await?;
        let (mut of_ours, mut of_null) = (Vec::new(), Vec::new());
        let end = Instant::now() + time;
        for body in self.bodies.iter().cycle() {
            if Instant::now() >= end {
                break;
            }
            for (client, times) in [(&mut ours, &mut of_ours), (&mut null, &mut of_null)] {
                let pause = self.random.below(PAUSE_MICROS) as u64;
                tokio::time::sleep(Duration::from_micros(pause)).await;
                times.push(client.call(body).await?.0);
            }
        }
        Ok((self, of_ours, of_null))
    }
}
