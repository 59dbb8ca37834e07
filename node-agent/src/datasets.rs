//! Datasets as the API server has them, for where and how to fetch.

use crate::origin::{OriginError, shown};
use hearth_api::Dataset;
use hearth_core::wire::report::Want;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// Enough for every dataset of one node.
const MOST_KEPT: usize = 1024;

/// Looks Datasets up, once per generation.
#[derive(Clone)]
pub struct Datasets {
    client: kube::Client,
    kept: Arc<Mutex<HashMap<String, Arc<Dataset>>>>,
}

impl Datasets {
    /// From this API server.
    pub fn new(client: kube::Client) -> Self {
        Self { client, kept: Arc::default() }
    }

    /// The Dataset that a want is of, at its generation or a later one.
    pub async fn of(&self, want: &Want) -> Result<Arc<Dataset>, OriginError> {
        if let Some(dataset) = self.kept.lock().get(&want.uid)
            && dataset.metadata.generation >= Some(want.generation)
        {
            return Ok(dataset.clone());
        }
        let found = self.named(&want.namespace, &want.dataset).await?;
        let deleted =
            || OriginError::NotFound(format!("Dataset {}/{} was deleted", want.namespace, want.dataset));
        let dataset = found
            .filter(|dataset| dataset.uid().as_deref() == Some(want.uid.as_str()))
            .ok_or_else(deleted)?;
        let dataset = Arc::new(dataset);
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(want.uid.clone(), dataset.clone());
        Ok(dataset)
    }

    /// A Dataset as it is now; `None` when there is none of that name.
    pub async fn named(&self, namespace: &str, name: &str) -> Result<Option<Dataset>, OriginError> {
        let api: Api<Dataset> = Api::namespaced(self.client.clone(), namespace);
        let unavailable = |why: String| {
            OriginError::Unavailable(format!("Dataset {namespace}/{name} cannot be read: {why}"))
        };
        tokio::time::timeout(PATIENCE, api.get_opt(name))
            .await
            .map_err(|_| unavailable("the API server did not answer in time".to_owned()))?
            .map_err(|error| unavailable(shown(&error.to_string())))
    }
}
