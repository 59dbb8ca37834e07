//! Which version a volume shows when it is published for the first time.

use super::error::ViewError;
use super::{Views, VolumeRequest};
use hearth_api::Dataset;
use hearth_core::manifest::ManifestHash;
use hearth_core::pod::Asked;
use hearth_core::wire::report::Choice;

impl Views {
    /// The version that the extender says; the current one for a pod that shares none with
    /// others, and when no extender says anything: pods start without one, too.
    pub(super) async fn version(
        &self,
        request: &VolumeRequest,
        asked: &Asked,
        dataset: &Dataset,
    ) -> Result<ManifestHash, ViewError> {
        let current = current(dataset, asked)?;
        let Some(pod) = request.pod.as_ref().map(|pod| &pod.uid) else { return Ok(current) };
        let name = asked.name().to_string();
        let choice = match self.0.versions.of(pod, &name).await {
            Some(choice @ (Choice::Held(_) | Choice::Named(_))) => choice,
            Some(Choice::Refused(why)) => return Err(ViewError::Invalid(why)),
            Some(Choice::Current | Choice::Undecided) => return Ok(current),
            None => {
                tracing::warn!(
                    pod,
                    dataset = name,
                    "no extender says in time which version the pod shares with others: it gets the current one"
                );
                return Ok(current);
            }
        };
        // Only the Dataset itself says which, and it may have since it was read.
        if let Some(version) = chosen(dataset, &choice) {
            return Ok(version);
        }
        let dataset = self.permitted(&request.namespace, asked).await?;
        chosen(&dataset, &choice).ok_or_else(|| {
            ViewError::NotYet(format!(
                "the version of Dataset {name} that the pod is to get is not in its status.held yet; kubelet asks again"
            ))
        })
    }
}

/// The version that is current.
fn current(dataset: &Dataset, asked: &Asked) -> Result<ManifestHash, ViewError> {
    current_of(dataset).ok_or_else(|| {
        ViewError::NotYet(format!(
            "Dataset {} has not been listed yet: see its conditions with kubectl -n {} describe dataset {}",
            asked.name(),
            asked.namespace,
            asked.dataset
        ))
    })
}

fn current_of(dataset: &Dataset) -> Option<ManifestHash> {
    ManifestHash::parse(&dataset.status.as_ref()?.version.as_ref()?.manifest)
}

/// The version that a choice means, if it is one of this Dataset: no other may be shown in
/// its name.
fn chosen(dataset: &Dataset, choice: &Choice) -> Option<ManifestHash> {
    let mut held = dataset.status.iter().flat_map(|status| &status.held);
    match choice {
        Choice::Held(owner) => {
            held.find(|held| held.owner == *owner).and_then(|held| ManifestHash::parse(&held.manifest))
        }
        Choice::Named(version) => {
            let held = held.filter_map(|held| ManifestHash::parse(&held.manifest));
            current_of(dataset).into_iter().chain(held).find(|known| known == version)
        }
        Choice::Current | Choice::Undecided | Choice::Refused(_) => None,
    }
}
