//! The cluster's name server: names of Services, as pods ask for them. It answers from the API server each time.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::kube_access::Kube;

const HEADER: usize = 12;
const NO_SUCH_NAME: u16 = 3;
const ADDRESS: u16 = 1;

/// The running server. Dropping it closes its port.
#[derive(Debug)]
pub(super) struct Names(JoinHandle<()>);

impl Names {
    /// Answers at port 53 of `address`.
    pub(super) async fn start(address: Ipv4Addr, kube: Kube) -> Result<Self> {
        let socket = UdpSocket::bind((address, 53)).await.context("cannot open the name server's port")?;
        Ok(Self(tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut query).await {
                let Some(question) = Question::of(&query[..length]) else { continue };
                // Who asks asks again, when the API server does not answer now.
                if let Ok(found) = found(&kube, &question.name).await {
                    let _ = socket.send_to(&question.answer(found), asker).await;
                }
            }
        })))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The addresses behind a Service; none when there is no such name.
async fn found(kube: &Kube, name: &str) -> Result<Option<Vec<Ipv4Addr>>> {
    let Some(name) = name.strip_suffix(".svc.cluster.local") else { return Ok(None) };
    let Some((service, namespace)) = name.split_once('.').filter(|(_, rest)| !rest.contains('.')) else {
        return Ok(None);
    };
    let only = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = kube.api::<EndpointSlice>(namespace).list(&only).await?.items;
    let addresses = slices.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| &endpoint.addresses);
    let addresses: Vec<Ipv4Addr> = addresses.filter_map(|address| address.parse().ok()).collect();
    Ok((!slices.is_empty()).then_some(addresses))
}

/// One question of a query.
struct Question<'a> {
    id: &'a [u8],
    /// As it came, to be repeated in the answer.
    raw: &'a [u8],
    name: String,
    kind: u16,
}

impl<'a> Question<'a> {
    fn of(query: &'a [u8]) -> Option<Self> {
        let (mut at, mut labels) = (HEADER, Vec::new());
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
        Some(Self { id: &query[..2], raw: query.get(HEADER..at + 4)?, name: labels.join("."), kind })
    }

    fn answer(&self, found: Option<Vec<Ipv4Addr>>) -> Vec<u8> {
        // An authoritative answer to a query that wanted recursion.
        let flags = 0x8580 | if found.is_some() { 0 } else { NO_SUCH_NAME };
        let addresses = found.filter(|_| self.kind == ADDRESS).unwrap_or_default();
        let count = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
        let mut answer = self.id.to_vec();
        for field in [flags, 1, count, 0, 0] {
            answer.extend(field.to_be_bytes());
        }
        answer.extend(self.raw);
        for address in addresses {
            // The name of the question, an Internet address, good for a second.
            answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(address.octets());
        }
        answer
    }
}
