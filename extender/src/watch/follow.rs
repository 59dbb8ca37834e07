//! Follows the objects of one kind: what came, what changed, and, after a
//! disconnect, what went meanwhile.

use futures::StreamExt;
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

/// Takes in the objects of one kind.
pub(crate) trait Follower<K> {
    /// The kind, for logs.
    const KIND: &'static str;
    /// Labels of the objects that are followed; all of them when `None`.
    const SELECTOR: Option<&'static str> = None;

    /// The object is there, and is so.
    fn apply(&mut self, object: K);
    /// The object is gone.
    fn delete(&mut self, object: K);
    /// Only the objects with these UIDs are there.
    fn retain(&mut self, uids: &HashSet<String>);
    /// All objects have been told of.
    fn synced(&mut self) {}
}

/// Follows until `shutdown`; `synced` becomes true when all objects were seen once.
pub(crate) async fn follow<K, F>(
    client: kube::Client,
    mut follower: F,
    synced: Sender<bool>,
    shutdown: CancellationToken,
) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Follower<K>,
{
    let mut listed = HashSet::new();
    // Object by object: a list of all of them at once would be the peak of memory.
    let selected = F::SELECTOR.iter().fold(Config::default(), |config, labels| config.labels(labels));
    let mut config = selected.clone().streaming_lists();
    loop {
        let objects = watch_objects(Api::<K>::all(client.clone()), config);
        let mut objects = std::pin::pin!(objects.default_backoff());
        let mut failing = false;
        loop {
            let event = tokio::select! {
                event = objects.next() => event,
                () = shutdown.cancelled() => return Ok(()),
            };
            match event {
                Some(Ok(event)) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(kind = F::KIND, "the API server is followed again");
                    }
                    if take(&mut follower, &mut listed, event) {
                        synced.send_replace(true);
                    }
                }
                Some(Err(error)) if refuses_streaming(&error) => {
                    tracing::info!(kind = F::KIND, "the API server does not stream lists, so they are paged");
                    config = selected.clone();
                    break;
                }
                // What is known stays: an API server that is away changes nothing.
                Some(Err(error)) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(
                        kind = F::KIND,
                        "the API server cannot be followed, trying again: {error}"
                    );
                }
                Some(Err(error)) => tracing::debug!(kind = F::KIND, "still failing: {error}"),
                None => anyhow::bail!("the watch of every {} ended", F::KIND),
            }
        }
    }
}

/// Passes an event on; whether a listing is complete with it. What was there before
/// a listing and is not in it went while nobody looked.
fn take<K: Resource, F: Follower<K>>(
    follower: &mut F,
    listed: &mut HashSet<String>,
    event: Event<K>,
) -> bool {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            listed.insert(object.uid().unwrap_or_default());
            follower.apply(object);
        }
        Event::Apply(object) => follower.apply(object),
        Event::Delete(object) => follower.delete(object),
        Event::InitDone => {
            follower.retain(&std::mem::take(listed));
            follower.synced();
            return true;
        }
    }
    false
}

/// A server without streaming lists calls the wish for one invalid.
fn refuses_streaming(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            status.code == 422 && status.message.contains("sendInitialEvents")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response, StatusCode};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::Body;
    use parking_lot::Mutex;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    #[derive(Default, Clone)]
    struct Uids(Arc<Mutex<HashSet<String>>>);

    impl Follower<ConfigMap> for Uids {
        const KIND: &'static str = "ConfigMap";

        fn apply(&mut self, object: ConfigMap) {
            self.0.lock().insert(object.uid().unwrap_or_default());
        }

        fn delete(&mut self, object: ConfigMap) {
            self.0.lock().remove(&object.uid().unwrap_or_default());
        }

        fn retain(&mut self, uids: &HashSet<String>) {
            self.0.lock().retain(|uid| uids.contains(uid));
        }
    }

    fn with_uid(uid: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.uid = Some(uid.to_owned());
        object
    }

    #[test]
    fn what_went_during_a_disconnect_is_dropped_at_the_end_of_the_listing() {
        let (mut follower, mut listed) = (Uids::default(), HashSet::new());
        let mut after = |events: Vec<Event<ConfigMap>>| {
            for event in events {
                take(&mut follower, &mut listed, event);
            }
            let mut uids: Vec<String> = follower.0.lock().iter().cloned().collect();
            uids.sort();
            uids.join(" ")
        };
        let listing = |uid| Event::InitApply(with_uid(uid));
        assert_eq!(after(vec![Event::Init, listing("a"), listing("b"), Event::InitDone]), "a b");
        assert_eq!(after(vec![Event::Apply(with_uid("c")), Event::Delete(with_uid("a"))]), "b c");
        assert_eq!(after(vec![Event::Init, listing("c")]), "b c", "a listing under way takes nothing away");
        // One that breaks off starts again, and what it had listed does not count.
        assert_eq!(after(vec![Event::Init, listing("d"), Event::InitDone]), "d");
    }

    #[tokio::test]
    async fn a_server_without_streaming_lists_is_asked_for_pages() {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (status, body) = if query.contains("sendInitialEvents=true") {
                let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
                let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": "Invalid", "code": 422});
                (StatusCode::UNPROCESSABLE_ENTITY, body)
            } else if query.contains("watch=true") {
                // A watch on which nothing happens any more.
                std::future::pending().await
            } else {
                let body = serde_json::json!({"kind": "ConfigMapList", "apiVersion": "v1",
                    "metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"uid": "a"}}]});
                (StatusCode::OK, body)
            };
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        });
        let client = kube::Client::new(service, "default");
        let shutdown = CancellationToken::new();
        let (sender, mut synced) = tokio::sync::watch::channel(false);
        let follower = Uids::default();
        let following = tokio::spawn(follow(client, follower.clone(), sender, shutdown.clone()));
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, synced.wait_for(|synced| *synced)).await.unwrap().unwrap();
        assert!(follower.0.lock().contains("a"));
        shutdown.cancel();
        following.await.unwrap().unwrap();
    }
}
