//! Reporting to a replica that a test plays.

use super::*;
use crate::replicas::Endpoint;
use crate::testing::*;
use crate::versions::{self, Versions};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{post, put};
use hearth_core::manifest::{ListedObject, Manifest, ManifestBuilder, ManifestOrigin};
use hearth_core::object::{AccessDomain, Validator};
use hearth_core::wire::report::{
    self, Adoption, Change, Choice, Inventory, PROTOCOL, PodVersion, Reply, Report, Trouble, TroubleKind,
    Verdict,
};
use std::collections::VecDeque;

/// What the replica answers next.
enum Answer {
    Reply(Reply),
    Status(StatusCode, &'static str),
}

#[derive(Default)]
struct Played {
    reports: Vec<Report>,
    answers: VecDeque<Answer>,
    manifests: BTreeMap<String, Bytes>,
    tokens: BTreeSet<String>,
}

/// A replica; without an answer it holds the reply until the next report, as the real one does.
#[derive(Clone)]
struct Extender {
    played: Arc<Mutex<Played>>,
    arrived: watch::Sender<usize>,
}

fn applied() -> Reply {
    Reply { protocol: PROTOCOL, verdict: Verdict::Applied, orders: None, need_manifests: vec![] }
}

async fn hear(State(extender): State<Extender>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    assert_eq!(headers["content-type"], report::CONTENT_TYPE);
    let report = report::decode_report(&body).unwrap();
    let (number, answer) = {
        let mut played = extender.played.lock();
        played.tokens.insert(headers["authorization"].to_str().unwrap().to_owned());
        played.reports.push(report);
        (played.reports.len(), played.answers.pop_front())
    };
    extender.arrived.send_replace(number);
    match answer {
        Some(Answer::Reply(reply)) => Response::new(Body::from(report::encode(&reply))),
        Some(Answer::Status(status, body)) => {
            Response::builder().status(status).body(Body::from(body)).unwrap()
        }
        None => {
            let newer = extender.arrived.subscribe();
            let mut newer = newer;
            let _ =
                tokio::time::timeout(Duration::from_secs(2), newer.wait_for(|latest| *latest > number)).await;
            Response::new(Body::from(report::encode(&applied())))
        }
    }
}

struct World {
    extender: Extender,
    store: Store,
    status: watch::Sender<FillStatus>,
    wants: watch::Receiver<Vec<Want>>,
    versions: Versions,
    last: LastReport,
    directory: tempfile::TempDir,
    _known: watch::Sender<Vec<Arc<Replica>>>,
    _task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl World {
    async fn new(answers: Vec<Answer>) -> Self {
        hearth_runtime::tls::install_provider();
        let played = Played { answers: answers.into(), ..Played::default() };
        let extender = Extender { played: Arc::new(Mutex::new(played)), arrived: watch::Sender::new(0) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/v1/report", post(hear))
            .route(
                "/v1/manifests/{hash}",
                put(async |State(extender): State<Extender>, Path(hash): Path<String>, body: Bytes| {
                    extender.played.lock().manifests.insert(hash, body);
                })
                .get(async |State(extender): State<Extender>, Path(hash): Path<String>| {
                    extender.played.lock().manifests.get(&hash).cloned().ok_or(StatusCode::NOT_FOUND)
                }),
            )
            .with_state(extender.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "secret-1\n").unwrap();
        let store = open_store(&directory.path().join("store"), None);
        let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
        let replica = Arc::new(Replica::new(endpoint, address, None, token).unwrap());
        let (known, replicas) = watch::channel(vec![replica]);
        let (status, fill) = watch::channel(FillStatus::default());
        let identity = store.identity();
        let (told, versions) = versions::channel();
        let (reporter, wants) = Reporter::new(ReporterParts {
            in_use: Default::default(),
            forget: {
                let store = store.clone();
                Arc::new(move |hash: &ManifestHash| store.retire(hash).map_err(ViewError::from))
            },
            versions: told,
            speaker: Speaker {
                node: "n".into(),
                node_uid: "u".into(),
                store: identity.uuid,
                boot: identity.boot,
            },
            store: store.clone(),
            manifests: Manifests::new(store.clone(), replicas.clone()),
            replicas,
            fill,
            evictions: watch::Sender::default(),
            evicted: watch::channel(Vec::new()).1,
            metrics: metrics(),
        });
        let last = reporter.last_report();
        let task = tokio::spawn(reporter.run(CancellationToken::new()));
        Self { extender, store, status, wants, versions, last, directory, _known: known, _task: task }
    }

    fn reports(&self) -> Vec<Report> {
        self.extender.played.lock().reports.clone()
    }

    async fn reported(&self, what: &str, condition: impl Fn(&[Report]) -> bool) {
        eventually(|| format!("{what}: {:#?}", self.reports()), || condition(&self.reports())).await;
    }

    fn adopt(&self, manifest: &Manifest) -> ManifestHash {
        let encoding = manifest.encode();
        let hash = ManifestHash::of(&encoding);
        self.store.put_manifest(hash, "ns/d", &encoding).unwrap();
        self.store.adopt(&hash).unwrap();
        hash
    }
}

fn manifest(path: &str) -> Manifest {
    let origin = ManifestOrigin::whole(AccessDomain::new("ns", None), "s3://b");
    let mut builder = ManifestBuilder::new(vec![origin]);
    builder.push(ListedObject {
        origin: 0,
        path: path.into(),
        size: 3,
        modified: 0,
        validator: Validator::etag("\"x\""),
        unlisted: false,
    });
    builder.finish().unwrap().0
}

fn delta_of(report: &Report) -> Option<&[Change]> {
    match &report.inventory {
        Inventory::Delta(changes) => Some(changes),
        Inventory::Snapshot(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_then_changes_without_waiting_for_the_held_reply() {
    let world = World::new(vec![]).await;
    world.reported("a snapshot", |reports| matches!(reports, [first, ..] if delta_of(first).is_none())).await;
    eventually(|| "a reply".into(), || world.last.age().is_some()).await;
    let hash = world.adopt(&manifest("a"));
    let begun = Instant::now();
    world.store.write_block(world.store.home().id(), &hash, 0, 0, Bytes::from_static(b"abc")).await.unwrap();
    world
        .reported("the block", |reports| {
            let changes = reports.iter().filter_map(delta_of).flatten();
            changes.into_iter().any(|change| matches!(change, Change::Blocks { manifest, added, .. } if *manifest == hash && added.0.contains(0)))
        })
        .await;
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    let reports = world.reports();
    assert!(reports.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
    assert!(reports.iter().all(|report| report.hold_millis == 2000 && report.speaker.node == "n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_told_at_once() {
    let world = World::new(vec![]).await;
    eventually(|| "a reply".into(), || world.last.age().is_some()).await;
    let trouble = Trouble {
        dataset: "ns/d".into(),
        manifest: ManifestHash([1; 32]),
        kind: TroubleKind::Origin,
        message: "down".into(),
    };
    world.status.send_replace(FillStatus {
        origin_bytes_per_second: Some(7),
        troubles: vec![trouble.clone()],
        failed_files: vec![],
    });
    world
        .reported("the trouble", |reports| {
            reports.iter().any(|report| report.status.troubles == [trouble.clone()])
        })
        .await;
    assert_eq!(world.reports().last().unwrap().status.origin_bytes_per_second, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_snapshot_gets_one() {
    let resync = Reply { verdict: Verdict::Resync { reason: "a gap".into() }, ..applied() };
    let world = World::new(vec![Answer::Reply(applied()), Answer::Reply(resync)]).await;
    world
        .reported("another snapshot", |reports| {
            reports.iter().filter(|report| delta_of(report).is_none()).count() >= 2
        })
        .await;
    let reports = world.reports();
    assert!(delta_of(&reports[1]).is_some() && delta_of(&reports[2]).is_none());
    assert!(reports[2].sequence > reports[1].sequence, "a number is never used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_followed_by_a_snapshot() {
    let failure = || Answer::Status(StatusCode::INTERNAL_SERVER_ERROR, "oh");
    let world = World::new(vec![failure(), failure(), Answer::Status(StatusCode::OK, "garbage")]).await;
    world.reported("a fourth snapshot", |reports| reports.len() >= 4).await;
    assert!(world.reports()[..4].iter().all(|report| delta_of(report).is_none()));
    eventually(|| "a reply".into(), || world.last.age().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_replica_is_spoken_to_as_it_understands() {
    let older = Answer::Status(StatusCode::UPGRADE_REQUIRED, r#"{"oldest":1,"newest":1}"#);
    let world = World::new(vec![older]).await;
    world.reported("protocol 1", |reports| reports.len() >= 2).await;
    let reports = world.reports();
    assert_eq!((reports[0].protocol, reports[1].protocol), (PROTOCOL, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_token_is_used() {
    let world = World::new(vec![Answer::Reply(applied())]).await;
    world.reported("a report", |reports| !reports.is_empty()).await;
    std::fs::write(world.directory.path().join("token"), "secret-2").unwrap();
    let expected: BTreeSet<String> = ["Bearer secret-1", "Bearer secret-2"].map(str::to_owned).into();
    eventually(|| "both tokens".into(), || world.extender.played.lock().tokens == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_missed_is_handed_over() {
    let world = World::new(vec![]).await;
    let manifest = manifest("a");
    let hash = world.adopt(&manifest);
    let asked = Reply { need_manifests: vec![hash, ManifestHash([9; 32])], ..applied() };
    world.extender.played.lock().answers.push_back(Answer::Reply(asked));
    eventually(
        || "the manifest".into(),
        || {
            world
                .extender
                .played
                .lock()
                .manifests
                .get(&hash.to_string())
                .is_some_and(|bytes| *bytes == manifest.encode())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_carried_out() {
    let world = World::new(vec![]).await;
    let newer = manifest("newer");
    let hash = ManifestHash::of(&newer.encode());
    world.extender.played.lock().manifests.insert(hash.to_string(), newer.encode().into());
    let orders = Orders {
        wants: vec![want(hash, &["x"], 3)],
        adopt: vec![Adoption { manifest: hash, dataset: "ns/d".into() }],
        retire: vec![],
        versions: Some(vec![PodVersion {
            pod: "p".into(),
            dataset: "ns/d".into(),
            choice: Choice::Held("job".into()),
        }]),
        evictions: vec![],
    };
    let reply = Reply { orders: Some(orders.clone()), ..applied() };
    world.extender.played.lock().answers.push_back(Answer::Reply(reply));
    eventually(|| "adopted".into(), || world.store.is_adopted(&hash)).await;
    assert_eq!(*world.wants.borrow(), orders.wants);
    assert_eq!(world.versions.of("p", "ns/d").await, Some(Choice::Held("job".into())));
    world
        .reported("what was seen", |reports| {
            reports.iter().any(|report| report.orders_seen == orders.digest())
        })
        .await;
}
