//! The name nodes of a cluster: who is asked, for how long, and who is asked next.

use super::answer;
use super::place::Asked;
use crate::origin::OriginError;
use futures::FutureExt;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The name that the client knows the name nodes by; nobody else hears it.
const SERVICE: &str = "cluster";
/// No directory: what the environment or the system has of Hadoop's configuration would change
/// what a Dataset says.
const NO_CONFIGURATION: &str = "/dev/null";
/// Replicas that a block has as a rule, each of which may have to be tried in the time that a
/// reader waits.
const REPLICAS: u32 = 3;

/// What tells one client from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    asked: Asked,
    timeout: Duration,
}

/// A cluster, asked as one user.
pub(super) struct Cluster {
    key: Key,
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    client: Client,
    /// Which name node it asks first.
    first: usize,
}

impl Cluster {
    fn new(key: Key) -> Result<Self, OriginError> {
        let current = Mutex::new(Current { client: client(&key, 0)?, first: 0 });
        Ok(Self { key, current })
    }

    /// Longest time without an answer.
    pub(super) fn timeout(&self) -> Duration {
        self.key.timeout
    }

    /// Asks once, about what is called `what`.
    pub(super) async fn ask<T, F>(
        &self,
        what: &str,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, HdfsError>>,
    {
        let Current { client, first } = self.current.lock().clone();
        // The client trusts servers to keep to the protocol, and panics where one does not.
        let answer = AssertUnwindSafe(request(client)).catch_unwind();
        let error = match tokio::time::timeout(self.key.timeout, answer).await {
            Ok(Ok(answer)) => {
                return answer.map_err(|error| self.meaning(what, &error));
            }
            Ok(Err(_)) => OriginError::Malformed(format!("{what} has an answer that makes no sense")),
            Err(_) => self.late(what),
        };
        self.turn_from(first)?;
        Err(error)
    }

    /// What an error about `what` means.
    pub(super) fn meaning(&self, what: &str, error: &HdfsError) -> OriginError {
        answer::meaning(what, &self.key.asked.user, error)
    }

    /// What did not come in time.
    pub(super) fn late(&self, what: &str) -> OriginError {
        OriginError::Unavailable(format!(
            "{what} did not answer within {}",
            humantime::format_duration(self.key.timeout)
        ))
    }

    /// Leaves a client that got no answer: it would ask the same name node over the same connection
    /// again. The next one asks another name node first.
    fn turn_from(&self, first: usize) -> Result<(), OriginError> {
        let mut current = self.current.lock();
        // Of many that wait in vain, one turns.
        if current.first == first {
            let first = first + 1;
            *current = Current { client: client(&self.key, first)?, first };
        }
        Ok(())
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A client that begins with the name node of this number, counted around.
fn client(key: &Key, first: usize) -> Result<Client, OriginError> {
    let Asked { name_nodes, user } = &key.asked;
    let mut nodes = name_nodes.clone();
    let count = nodes.len();
    nodes.rotate_left(first % count);
    let names: Vec<String> = (0..nodes.len()).map(|number| format!("n{number}")).collect();
    let addresses = names.iter().zip(&nodes).map(|(name, (host, port))| {
        (format!("dfs.namenode.rpc-address.{SERVICE}.{name}"), format!("{host}:{port}"))
    });
    let socket = key.timeout / REPLICAS;
    let config = [
        (format!("dfs.ha.namenodes.{SERVICE}"), names.join(",")),
        // Each once: how often all of them are tried is the retry policy's to say.
        ("dfs.client.failover.max.attempts".to_owned(), (count - 1).to_string()),
        ("dfs.client.socket-timeout".to_owned(), socket.as_millis().to_string()),
    ];
    ClientBuilder::new()
        .with_url(format!("hdfs://{SERVICE}"))
        .with_config_dir(NO_CONFIGURATION)
        .with_config(config.into_iter().chain(addresses))
        .with_user(user)
        .build()
        .map_err(|error| OriginError::Refused(format!("no client of HDFS can be made: {error}")))
}

/// The clusters in use: those who read one as the same user share its connection.
#[derive(Debug, Default)]
pub(in crate::origin) struct Clusters {
    known: Mutex<HashMap<Key, Weak<Cluster>>>,
}

impl Clusters {
    pub(super) fn of(&self, asked: Asked, timeout: Duration) -> Result<Arc<Cluster>, OriginError> {
        let key = Key { asked, timeout };
        let mut known = self.known.lock();
        known.retain(|_, cluster| cluster.strong_count() > 0);
        if let Some(cluster) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(cluster);
        }
        let cluster = Arc::new(Cluster::new(key.clone())?);
        known.insert(key, Arc::downgrade(&cluster));
        Ok(cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    fn cluster(name_nodes: &[u16]) -> Arc<Cluster> {
        let name_nodes = name_nodes.iter().map(|port| ("127.0.0.1".to_owned(), *port)).collect();
        let asked = Asked { name_nodes, user: "ann".to_owned() };
        Clusters::default().of(asked, Duration::from_secs(30)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn another_name_node_is_asked_after_one_that_does_not_answer() {
        let cluster = cluster(&[1, 2]);
        let ask = || cluster.ask("hdfs://nn/a", |_| std::future::pending::<Result<(), _>>());
        let (first, second) = tokio::join!(ask(), ask());
        let late = OriginError::Unavailable("hdfs://nn/a did not answer within 30s".to_owned());
        assert_eq!((first, second), (Err(late.clone()), Err(late)));
        assert_eq!(cluster.current.lock().first, 1);
    }

    #[tokio::test]
    async fn an_answer_that_makes_no_sense_is_an_error() {
        let cluster = cluster(&[1]);
        let ask = cluster.ask("hdfs://nn/a", |_| async { Ok("nonsense".parse::<u8>().unwrap()) });
        let error = ask.await.unwrap_err();
        assert_eq!(error.to_string(), "hdfs://nn/a has an answer that makes no sense");
        assert_eq!(cluster.current.lock().first, 1);
    }

    #[tokio::test]
    async fn who_hangs_up_may_want_kerberos() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let cluster = cluster(&[listener.local_addr().unwrap().port()]);
        let server = async {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut begin = [0; 7];
                connection.read_exact(&mut begin).await.unwrap();
            }
        };
        let ask = cluster.ask("hdfs://nn/a", |client| async move { client.get_file_info("/a").await });
        let error = tokio::select! {
            () = server => unreachable!("the server does not end"),
            answer = ask => answer.unwrap_err(),
        };
        assert!(error.is_transient() && error.to_string().contains("Kerberos is not supported"), "{error}");
    }

    #[tokio::test]
    async fn who_reads_as_the_same_user_shares_a_connection() {
        let clusters = Clusters::default();
        let of = |user: &str| {
            let asked = Asked { name_nodes: vec![("nn".to_owned(), 8020)], user: user.to_owned() };
            clusters.of(asked, Duration::from_secs(1)).unwrap()
        };
        let (ann, bob) = (of("ann"), of("bob"));
        assert!(Arc::ptr_eq(&ann, &of("ann")) && !Arc::ptr_eq(&ann, &bob));
    }
}
