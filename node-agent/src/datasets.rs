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
        let name = format!("{}/{}", want.namespace, want.dataset);
        let api: Api<Dataset> = Api::namespaced(self.client.clone(), &want.namespace);
        let unavailable =
            |why: String| OriginError::Unavailable(format!("Dataset {name} cannot be read: {why}"));
        let found = tokio::time::timeout(PATIENCE, api.get_opt(&want.dataset))
            .await
            .map_err(|_| unavailable("the API server did not answer in time".to_owned()))?
            .map_err(|error| unavailable(shown(&error.to_string())))?;
        let dataset = found
            .filter(|dataset| dataset.uid().as_deref() == Some(want.uid.as_str()))
            .ok_or_else(|| OriginError::NotFound(format!("Dataset {name} was deleted")))?;
        let dataset = Arc::new(dataset);
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(want.uid.clone(), dataset.clone());
        Ok(dataset)
    }
}
