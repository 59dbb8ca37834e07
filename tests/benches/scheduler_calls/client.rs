//! One HTTP/1.1 connection that is kept, as kube-scheduler has it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Client {
    stream: TcpStream,
    path: &'static str,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, path: &'static str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, path, request: Vec::new(), reply: Vec::new() })
    }

    /// Sends a body; the time from the first byte sent to the last received, and the reply's size.
    pub(crate) async fn call(&mut self, body: &[u8]) -> anyhow::Result<(Duration, usize)> {
        self.request.clear();
        let head =
            format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", self.path, body.len());
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body);
        self.reply.clear();
        let started = Instant::now();
        self.stream.write_all(&self.request).await?;
        let expected = loop {
            anyhow::ensure!(self.stream.read_buf(&mut self.reply).await? > 0, "the server hung up");
            if let Some(end) = self.reply.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.reply[..end])?.to_ascii_lowercase();
                anyhow::ensure!(head.starts_with("http/1.1 200"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                break end
                    + 4
                    + length
                        .ok_or_else(|| anyhow::anyhow!("no Content-Length: {head}"))?
                        .parse::<usize>()?;
            }
        };
        self.reply.reserve(expected.saturating_sub(self.reply.len()));
        while self.reply.len() < expected {
            anyhow::ensure!(self.stream.read_buf(&mut self.reply).await? > 0, "the server hung up");
        }
        Ok((started.elapsed(), expected))
    }
}
