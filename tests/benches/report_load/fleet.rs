//! Agents that report: each with its own TLS connection, and the next report as
//! soon as the reply to the one before has come. Replies are held for two seconds
//! while there is nothing to say, which paces them.

use crate::fixture::{DATASETS, NODES, Random, node_name};
use crate::server::Ready;
use crate::tokens::Signer;
use anyhow::Context;
use hearth_core::block::BlockNumber;
use hearth_core::manifest::ManifestHash;
use hearth_core::wire::report::{
    Blocks, CONTENT_TYPE, Change, Inventory, NodeStatus, PROTOCOL, Report, Speaker, Verdict, decode_reply,
    encode,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Milliseconds from one report of an agent to its next.
const PERIOD: u32 = 2_000;
/// Blocks that came, and as many that went, in each report.
const CHANGED: usize = 16;
/// Blocks of a dataset that agents change: one for each of its files.
const BLOCKS: usize = 100_000;
/// Handshakes under way at a time.
const CONNECTING: usize = 64;

/// The agents, until it is dropped.
pub(crate) struct Fleet {
    tasks: JoinSet<anyhow::Result<()>>,
    reports: Arc<AtomicU64>,
}

struct Agent {
    stream: TlsStream<TcpStream>,
    head: String,
    reply: Vec<u8>,
    report: Report,
    manifest: ManifestHash,
    dataset: String,
    random: Random,
    held: Vec<BlockNumber>,
}

impl Fleet {
    /// Connects all agents; returns when each has had a reply.
    pub(crate) async fn start(ready: &Ready) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ready.authority.as_bytes())?)?;
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let signer = Arc::new(Signer::new(&ready.token_key)?);
        let slots = Arc::new(Semaphore::new(CONNECTING));
        let mut starting = JoinSet::new();
        for number in 0..NODES {
            let (connector, signer, slots) = (connector.clone(), signer.clone(), slots.clone());
            let (address, manifest) = (ready.agents, ManifestHash(ready.manifests[number % DATASETS]));
            starting.spawn(async move {
                let _slot = slots.acquire().await?;
                let mut agent = Agent::connect(address, &connector, &signer, number, manifest).await?;
                agent.turn().await?;
                anyhow::Ok((number, agent))
            });
        }
        let mut agents = Vec::with_capacity(NODES);
        while let Some(started) = starting.join_next().await {
            agents.push(started??);
        }
        let reports = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for (number, mut agent) in agents {
            let reports = reports.clone();
            tasks.spawn(async move {
                // Spread over the period, as they are who have started at different times.
                let share = f64::from(PERIOD) / 1000.0 * number as f64 / NODES as f64;
                tokio::time::sleep(Duration::from_secs_f64(share)).await;
                loop {
                    agent.turn().await.with_context(|| format!("agent {number}"))?;
                    reports.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { tasks, reports })
    }

    /// Reports that have been answered.
    pub(crate) fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    /// Fails when an agent has.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            Some(ended) => ended?,
            None => Ok(()),
        }
    }
}

impl Agent {
    async fn connect(
        address: SocketAddr,
        connector: &TlsConnector,
        signer: &Signer,
        number: usize,
        manifest: ManifestHash,
    ) -> anyhow::Result<Self> {
        let node = node_name(number);
        let token = signer.token(&node, &node)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        // The fixture has sent this agent's snapshot, under the number 0: what it
        // holds of every dataset. The deltas continue that session.
        let report = Report {
            protocol: PROTOCOL,
            speaker: Speaker { node_uid: node.clone(), node, store: uuid::Uuid::nil(), boot: 1 },
            sequence: 0,
            inventory: Inventory::Delta(Vec::new()),
            status: NodeStatus { capacity_bytes: 1 << 40, used_bytes: 1 << 39, ..NodeStatus::default() },
            orders_seen: 0,
            hold_millis: PERIOD,
        };
        Ok(Self {
            stream,
            head: format!(
                "POST /v1/report HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: "
            ),
            reply: Vec::new(),
            report,
            manifest,
            dataset: format!("bench/set-{}", number % DATASETS),
            random: Random::new(number as u64),
            held: Vec::new(),
        })
    }

    /// One report and the reply to it.
    async fn turn(&mut self) -> anyhow::Result<()> {
        let came: Vec<BlockNumber> = (0..CHANGED).map(|_| self.random.below(BLOCKS) as BlockNumber).collect();
        let went = std::mem::replace(&mut self.held, came.clone());
        self.report.sequence += 1;
        self.report.inventory = Inventory::Delta(vec![Change::Blocks {
            manifest: self.manifest,
            dataset: self.dataset.clone(),
            removed: Blocks(went.iter().filter(|block| !came.contains(block)).collect()),
            added: Blocks(came.into_iter().collect()),
        }]);
        let body = encode(&self.report);
        let mut request = format!("{}{}\r\n\r\n", self.head, body.len()).into_bytes();
        request.extend_from_slice(&body);
        self.stream.write_all(&request).await?;
        let reply = self.read_reply().await?;
        let reply = decode_reply(reply)?;
        anyhow::ensure!(reply.verdict == Verdict::Applied, "{:?}", reply.verdict);
        if let Some(orders) = reply.orders {
            self.report.orders_seen = orders.digest();
        }
        Ok(())
    }

    async fn read_reply(&mut self) -> anyhow::Result<&[u8]> {
        self.reply.clear();
        loop {
            anyhow::ensure!(self.stream.read_buf(&mut self.reply).await? > 0, "the server hung up");
            let Some(end) = self.reply.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.reply[..end])?.to_ascii_lowercase();
            anyhow::ensure!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(&self.reply));
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.with_context(|| format!("no Content-Length: {head}"))?.parse()?;
            while self.reply.len() < end + 4 + length {
                anyhow::ensure!(self.stream.read_buf(&mut self.reply).await? > 0, "the server hung up");
            }
            return Ok(&self.reply[end + 4..]);
        }
    }
}
