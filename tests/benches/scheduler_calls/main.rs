//! kube-scheduler's calls over real HTTP, on one connection, at 5,000 nodes: ours
//! beside a server that only reads the body, and beside the ordinary way.
//!
//! `cargo bench -p hearth-tests --bench scheduler_calls`

mod client;
mod fixture;
mod ordinary;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use client::Client;
use fixture::{NODES, Random, asks, body, cluster, node_name};
use hearth_core::pod::PodFacts;
use hearth_core::wire::scheduler::parse_call;
use hearth_extender::http::scheduler::{Handlers, Warnings, router};
use hearth_extender::metrics::Metrics;
use hearth_extender::state::State;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Calls of each kind before any is counted.
const WARM_UP: usize = 200;
/// Calls of each kind that are counted.
const COUNTED: usize = 4_000;
/// Different pods that ask in turn.
const PODS: usize = 400;

struct Silent;

impl Warnings for Silent {
    fn warn(&self, _: &PodFacts, _: Vec<String>) {}
}

async fn serve(router: Router) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    eprintln!("making 100 datasets of 100,000 files, each held at random by 100 of 5,000 nodes…");
    let state = Arc::new(State::new(hearth_core::index::Settings::default(), Metrics::new()?));
    let index = tokio::task::spawn_blocking(|| cluster(hearth_core::index::Millis(0))).await?;
    state.write(|own| *own = index);
    // Calls are refused before the API server's objects have all been seen.
    state.set_agents(|agents| agents.synced = true);

    let names: Vec<String> = (0..NODES).map(node_name).collect();
    let mut random = Random::new(2);
    let bodies = |locality: &str, random: &mut Random| -> Vec<Bytes> {
        (0..PODS).map(|_| Bytes::from(body(&asks(random), locality, &names))).collect()
    };
    let (preferred, required) = (bodies("preferred", &mut random), bodies("required", &mut random));
    // As the watch of pending pods does, moments before the scheduler's call.
    for body in preferred.iter().chain(&required) {
        let demand = state.demand(&parse_call(body)?.pod);
        demand.iter().for_each(|demand| state.prepare(demand));
    }

    let ours = serve(router(Handlers { state, warnings: Arc::new(Silent), client: None }, 8 << 20)).await?;
    let floor = serve(
        Router::new()
            .route(
                "/read",
                post(|body: Bytes| async move {
                    std::hint::black_box(body.len());
                    "[]"
                }),
            )
            .layer(axum::extract::DefaultBodyLimit::max(8 << 20)),
    )
    .await?;
    let ordinary = serve(ordinary::router(&names)).await?;

    let mut variants = [
        ("read the body only", Client::connect(floor, "/read").await?, &preferred, Vec::new()),
        ("prioritize", Client::connect(ours, "/prioritize").await?, &preferred, Vec::new()),
        ("filter", Client::connect(ours, "/filter").await?, &required, Vec::new()),
        ("ordinary prioritize", Client::connect(ordinary, "/prioritize").await?, &preferred, Vec::new()),
    ];
    let mut sizes = [0; 4];
    for turn in 0..WARM_UP + COUNTED {
        for (variant, (_, client, bodies, times)) in variants.iter_mut().enumerate() {
            let (time, size) = client.call(&bodies[turn % PODS]).await?;
            sizes[variant] = size;
            if turn >= WARM_UP {
                times.push(time);
            }
        }
    }

    println!("{NODES} nodes, a body of {} kB, {COUNTED} calls each, interleaved", preferred[0].len() / 1000);
    println!("{:22} {:>9} {:>9} {:>9} {:>10}", "", "p50", "p99", "× floor", "reply");
    let base = percentile(&mut variants[0].3.clone(), 0.5);
    for ((name, _, _, times), size) in variants.iter_mut().zip(sizes) {
        let p50 = percentile(times, 0.5);
        let p99 = percentile(times, 0.99);
        println!(
            "{name:22} {:>6.0} µs {:>6.0} µs {:>9.2} {:>7} kB",
            p50.as_secs_f64() * 1e6,
            p99.as_secs_f64() * 1e6,
            p50.as_secs_f64() / base.as_secs_f64(),
            size / 1000
        );
    }
    Ok(())
}
