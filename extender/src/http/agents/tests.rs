use super::*;
use crate::auth::KeySource;
use crate::auth::signer::{Signer, claims, expected};
use crate::metrics::Metrics;
use axum::body::{Body, to_bytes};
use hearth_core::index::{DatasetFacts, DatasetName, NodeFacts, Settings};
use hearth_core::manifest::{ListedObject, Manifest, ManifestBuilder, ManifestHash, ManifestOrigin};
use hearth_core::object::{AccessDomain, Validator};
use hearth_core::pod::PodFacts;
use hearth_core::wire::report::{Blocks, Change, Holding, Inventory, NodeStatus, Speaker, decode_reply};
use tower::ServiceExt;

struct World {
    state: Arc<State>,
    signer: Signer,
    shutdown: CancellationToken,
    router: Router,
}

impl World {
    fn new() -> Self {
        let state = Arc::new(State::new(Settings::default(), Metrics::new().unwrap()));
        let signer = Signer::new("k");
        let verifier = Verifier::new(expected(), KeySource::Given);
        verifier.set_keys(&signer.jwks());
        let shutdown = CancellationToken::new();
        let handlers = Handlers::new(state.clone(), Arc::new(verifier), shutdown.clone());
        Self { state, signer, shutdown, router: router(handlers, 1 << 20, 1 << 20) }
    }

    async fn send(&self, request: http::request::Builder, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let response = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status();
        (status, to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    fn request(&self, method: &str, path: &str, node: &str) -> http::request::Builder {
        let token = self.signer.sign(&claims(node));
        http::Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"))
    }

    /// Sends a report as the agent of the node that it is for.
    async fn report(&self, report: &Report) -> Reply {
        let request = self.request("POST", REPORT, &report.speaker.node);
        let (status, body) = self.send(request, encode(report)).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        decode_reply(&body).unwrap()
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.state.metrics.reports.with_label_values(&[outcome]).get()
    }

    /// Brings a pod to the node that reads the whole of Dataset `n/d`.
    fn bind(&self, node: &str, uid: &str) {
        let pod: PodFacts = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "n", "name": uid, "uid": uid, "annotations": {"hearth.dev/datasets": "d"}}
        }))
        .unwrap();
        self.state.write(|index| index.bind_pod(uid, node, pod.demand(DatasetName::clone).unwrap()));
        self.state.wake(node);
    }

    /// The API server names this version of Dataset `n/d`.
    fn name_version(&self, hash: ManifestHash) {
        let facts = DatasetFacts { uid: "d".into(), manifest: Some(hash), ..DatasetFacts::default() };
        self.state.write(|index| index.set_dataset(&DatasetName::new("n", "d"), facts));
        self.state.accept_offers();
        self.state.wake_all();
    }
}

fn report_of(node: &str, sequence: u64, inventory: Inventory) -> Report {
    Report {
        protocol: PROTOCOL,
        speaker: Speaker {
            node: node.to_owned(),
            node_uid: format!("uid-of-{node}"),
            store: uuid::Uuid::from_u128(1),
            boot: 1,
        },
        sequence,
        inventory,
        status: NodeStatus::default(),
        orders_seen: 0,
        hold_millis: 0,
    }
}

fn snapshot(node: &str) -> Report {
    report_of(node, 0, Inventory::Snapshot(Vec::new()))
}

fn delta(node: &str, sequence: u64, orders_seen: u64, hold_millis: u32) -> Report {
    Report { orders_seen, hold_millis, ..report_of(node, sequence, Inventory::Delta(Vec::new())) }
}

fn manifest() -> (Manifest, ManifestHash) {
    let origin = ManifestOrigin::whole(AccessDomain::new("n", None), "s3://b");
    let mut builder = ManifestBuilder::new(vec![origin]);
    builder.push(ListedObject {
        origin: 0,
        path: "a".to_owned(),
        size: 10,
        modified: 0,
        validator: Validator::HexETag([1; 16]),
        unlisted: false,
    });
    let manifest = builder.finish().unwrap().0;
    let hash = ManifestHash::of(&manifest.encode());
    (manifest, hash)
}

#[tokio::test]
async fn strangers_are_refused_before_their_bodies_are_read() {
    let world = World::new();
    // A body of which no byte ever comes.
    let never = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    for (method, path) in [("POST", REPORT), ("PUT", "/v1/manifests/00"), ("GET", "/v1/manifests/00")] {
        for authorization in [None, Some("Basic x"), Some("Bearer x")] {
            let mut request = http::Request::builder().method(method).uri(path);
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let response = world.router.clone().oneshot(request.body(never()).unwrap()).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        }
    }
    assert_eq!(world.counted("unauthorized"), 3);
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_node_only() {
    let world = World::new();
    let other_uid = Report {
        speaker: Speaker { node_uid: "uid-of-an-older-a".into(), ..snapshot("a").speaker },
        ..snapshot("a")
    };
    for forged in [snapshot("b"), other_uid] {
        let (status, why) = world.send(world.request("POST", REPORT, "a"), encode(&forged)).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(String::from_utf8_lossy(&why).contains("the token is of an agent on node a"));
    }
    assert_eq!(world.state.read(|index| index.nodes().count()), 0, "nothing of it was applied");
}

#[tokio::test]
async fn the_token_of_a_deleted_agent_is_good_no_more() {
    let world = World::new();
    world.state.set_agents(|agents| {
        agents.synced = true;
        agents.uids.insert("pod-of-a".to_owned());
    });
    world.report(&snapshot("a")).await;
    world.state.set_agents(|agents| agents.uids.clear());
    let (status, _) = world.send(world.request("POST", REPORT, "a"), encode(&snapshot("a"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn messages_of_other_times_and_none_at_all() {
    let world = World::new();
    let (status, body) = world
        .send(world.request("POST", REPORT, "a"), encode(&Report { protocol: PROTOCOL + 1, ..snapshot("a") }))
        .await;
    assert_eq!(status, StatusCode::UPGRADE_REQUIRED);
    let spoken: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(spoken, serde_json::json!({"oldest": OLDEST_PROTOCOL, "newest": PROTOCOL}));
    let (status, why) = world.send(world.request("POST", REPORT, "a"), b"garbage".to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(String::from_utf8(why).unwrap().trim_end().lines().count(), 1);
    let (status, _) = world.send(world.request("POST", REPORT, "a"), vec![0; 2 << 20]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    // An older agent is answered in its own protocol.
    let reply = world.report(&Report { protocol: OLDEST_PROTOCOL, ..snapshot("a") }).await;
    assert_eq!(reply.protocol, OLDEST_PROTOCOL);
    assert_eq!((world.counted("refused"), world.counted("applied")), (2, 1));
}

#[tokio::test]
async fn a_gap_asks_for_a_snapshot_at_once() {
    let world = World::new();
    let reply = world.report(&delta("a", 1, 0, MAX_HOLD_MILLIS)).await;
    assert!(matches!(reply.verdict, Verdict::Resync { .. }));
    world.report(&snapshot("a")).await;
    let reply = world.report(&delta("a", 2, 0, MAX_HOLD_MILLIS)).await;
    assert!(matches!(reply.verdict, Verdict::Resync { .. }));
    assert_eq!(world.state.metrics.resyncs.get(), 2);
}

/// The clock stands still unless everybody waits for it: a reply that comes without
/// its passing was not held.
#[tokio::test(start_paused = true)]
async fn a_reply_is_held_until_a_pod_is_bound() {
    let world = World::new();
    let hash = manifest().1;
    world.name_version(hash);
    let began = tokio::time::Instant::now();
    let first = world.report(&snapshot("a")).await.orders.unwrap();
    assert_eq!(first.wants, []);
    assert_eq!(began.elapsed(), Duration::ZERO, "first orders are news");

    let held_report = delta("a", 1, first.digest(), MAX_HOLD_MILLIS);
    let held = world.report(&held_report);
    let binding = async {
        tokio::time::advance(Duration::from_millis(700)).await;
        // What happens to another node lets nobody go.
        world.bind("b", "q");
        tokio::time::advance(Duration::from_millis(300)).await;
        world.bind("a", "p");
    };
    let (reply, ()) = tokio::join!(held, binding);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    let orders = reply.orders.unwrap();
    assert_eq!((orders.wants.len(), orders.wants[0].manifest), (1, hash));

    let reply = world.report(&delta("a", 2, orders.digest(), 60_000)).await;
    assert_eq!((began.elapsed(), reply.orders), (Duration::from_secs(3), None), "held at most two seconds");
}

/// A digest of what the agent cannot read would make every reply news to it.
#[tokio::test(start_paused = true)]
async fn a_reply_to_an_older_agent_is_held_too() {
    let world = World::new();
    world.name_version(manifest().1);
    world.bind("a", "p");
    let older = |report| Report { protocol: 2, ..report };
    let orders = world.report(&older(snapshot("a"))).await.orders.unwrap();
    assert_eq!((orders.wants.len(), &orders.versions), (1, &None));
    let began = tokio::time::Instant::now();
    let reply = world.report(&older(delta("a", 1, orders.digest(), MAX_HOLD_MILLIS))).await;
    assert_eq!((reply.orders, began.elapsed()), (None, Duration::from_secs(2)));
    let newer = world.report(&delta("a", 2, orders.digest(), 0)).await.orders.unwrap();
    assert_eq!(newer.versions.map(|versions| versions.len()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_newer_report_or_the_end_lets_a_held_reply_go() {
    let world = World::new();
    let digest = world.report(&snapshot("a")).await.orders.unwrap().digest();
    let began = tokio::time::Instant::now();
    let older = delta("a", 1, digest, MAX_HOLD_MILLIS);
    let newer = async {
        tokio::time::advance(Duration::from_millis(100)).await;
        world.report(&delta("a", 2, digest, 300)).await
    };
    let older = async {
        let reply = world.report(&older).await;
        (reply, began.elapsed())
    };
    let ((reply, released), newer) = tokio::join!(older, newer);
    assert_eq!((reply.verdict, reply.orders), (Verdict::Applied, None));
    assert_eq!(released, Duration::from_millis(100));
    assert_eq!((newer.verdict, began.elapsed()), (Verdict::Applied, Duration::from_millis(400)));

    world.shutdown.cancel();
    world.report(&delta("a", 3, digest, MAX_HOLD_MILLIS)).await;
    assert_eq!(began.elapsed(), Duration::from_millis(400));
}

#[tokio::test]
async fn a_missing_manifest_is_asked_of_one_who_has_it() {
    let world = World::new();
    let (manifest, hash) = manifest();
    let path = format!("/v1/manifests/{hash}");
    assert_eq!(world.send(world.request("GET", &path, "a"), vec![]).await.0, StatusCode::NOT_FOUND);
    world.name_version(hash);
    world.state.write(|index| {
        for node in ["a", "b"] {
            let facts =
                NodeFacts { uid: format!("uid-of-{node}"), schedulable: true, ..NodeFacts::default() };
            index.set_node(node, facts);
        }
    });
    let holding = || Holding { manifest: hash, dataset: "n/d".to_owned(), blocks: Blocks((0..1).collect()) };
    let knows = |node| report_of(node, 0, Inventory::Snapshot(vec![holding()]));
    assert_eq!(world.report(&snapshot("c")).await.need_manifests, []);
    assert_eq!(world.report(&knows("a")).await.need_manifests, [hash]);
    assert_eq!(world.report(&knows("b")).await.need_manifests, [], "one is asked at a time");

    let bytes = manifest.encode();
    let put = |path: &str, body: &[u8]| world.send(world.request("PUT", path, "a"), body.to_vec());
    assert_eq!(put("/v1/manifests/nonsense", &bytes).await.0, StatusCode::BAD_REQUEST);
    let wrong = format!("/v1/manifests/{}", ManifestHash([7; 32]));
    assert_eq!(put(&wrong, &bytes).await.0, StatusCode::UNPROCESSABLE_ENTITY, "another's name");
    assert_eq!(put(&path, &bytes[1..]).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(put(&path, &bytes).await.0, StatusCode::NO_CONTENT);
    assert_eq!(put(&path, &bytes).await.0, StatusCode::NO_CONTENT, "again is as well");
    assert!(world.state.read(|index| index.missing_manifests().is_empty()));
    let (status, got) = world.send(world.request("GET", &path, "b"), vec![]).await;
    assert_eq!((status, got), (StatusCode::OK, bytes));
}

#[tokio::test]
async fn a_manifest_that_comes_before_it_is_named_waits_for_its_name() {
    let world = World::new();
    let (manifest, hash) = manifest();
    let path = format!("/v1/manifests/{hash}");
    let (status, _) = world.send(world.request("PUT", &path, "a"), manifest.encode()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    world.name_version(hash);
    assert!(world.state.read(|index| index.manifest(&hash).is_some()));
}

#[tokio::test]
async fn what_is_reported_counts() {
    let world = World::new();
    let (manifest, hash) = manifest();
    world.name_version(hash);
    world.state.offer_manifest(hash, Arc::new(manifest));
    world.report(&snapshot("a")).await;
    let change = Change::Blocks {
        manifest: hash,
        dataset: "n/d".to_owned(),
        added: Blocks((0..1).collect()),
        removed: Blocks::default(),
    };
    world.report(&report_of("a", 1, Inventory::Delta(vec![change]))).await;
    let now = world.state.now().monotonic;
    let warmth = world.state.read(|index| index.dataset_warmth(now, &DatasetName::new("n", "d"))).unwrap();
    assert_eq!((warmth.whole, warmth.most), (1, 10));
}

/// What a client sees of the server's certificate, trusting `authority`; `None` when
/// nobody answers or it is of another authority.
fn certificate_seen(address: SocketAddr, authority: &str) -> Option<Vec<u8>> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut stream).ok()?;
    }
    Some(client.peer_certificates()?[0].to_vec())
}

/// Time passes only while no client is at it, so this takes no 30 seconds.
#[tokio::test(start_paused = true)]
async fn a_changed_certificate_is_served_without_a_restart() {
    hearth_runtime::tls::install_provider();
    let dir = tempfile::tempdir().unwrap();
    let files = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let install = |made: &crate::certificates::Certificates| {
        std::fs::write(&files.1, &made.key).unwrap();
        std::fs::write(&files.0, &made.certificate).unwrap();
    };
    let (old, new) = (
        crate::certificates::make("hearth-system", "hearth-extender").unwrap(),
        crate::certificates::make("hearth-system", "hearth-extender").unwrap(),
    );
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::new();
    let missing = serve(address, files.clone(), world.router.clone(), world.shutdown.clone()).await;
    assert!(format!("{:#}", missing.unwrap_err()).contains("hearth-extender certificates"));

    install(&old);
    let server = tokio::spawn(serve(address, files.clone(), world.router.clone(), world.shutdown.clone()));
    let serves = async |authority: &str| {
        for _ in 0..100 {
            let authority = authority.to_owned();
            let seen = tokio::task::spawn_blocking(move || certificate_seen(address, &authority)).await;
            if seen.unwrap().is_some() {
                return true;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        false
    };
    assert!(serves(&old.authority).await);
    install(&new);
    assert!(serves(&new.authority).await, "within two looks at the files");
    world.shutdown.cancel();
    server.await.unwrap().unwrap();
}
