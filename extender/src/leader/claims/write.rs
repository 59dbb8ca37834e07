//! Carries single actions out, and says what became of them.

use super::super::FIELD_MANAGER;
use super::objects::{Place, VOLUME_UID, is_ours};
use super::plan::Action;
use crate::answer::{Answer, answer};
use hearth_core::annotation::CLAIM_PREFIX;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Why an action is to be planned again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// What was planned by is not how things are any more.
    Outdated,
    /// Somebody else has made an object of the name; a sentence for the Dataset's owner.
    Taken(Place, String),
    /// The API server does not want it; a sentence for the Dataset's owner.
    Refused(Place, String),
    /// The API server did not do it.
    Failed(String),
}

pub(super) async fn carry_out(client: &kube::Client, action: &Action) -> Result<(), Trouble> {
    let claims = |namespace: &str| Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let volumes = Api::<PersistentVolume>::all(client.clone());
    match action {
        Action::MakeClaim(place) => {
            let what = format!("in namespace {} the claim", place.namespace);
            make(&claims(&place.namespace), &place.claim(), place, &what).await
        }
        Action::MakeVolume { place, claim_uid, bytes } => {
            make(&volumes, &place.volume(claim_uid, *bytes), place, "the PersistentVolume").await
        }
        Action::Bind { claim, uid, volume_uid } => {
            // A claim that was made again under the name is another one: the UID says so.
            let patch =
                serde_json::json!({"metadata": {"uid": uid, "annotations": {VOLUME_UID: volume_uid}}});
            change(&claims(&claim.namespace), &format!("{CLAIM_PREFIX}{}", claim.name), &patch).await
        }
        Action::DropClaim { claim, uid } => {
            drop_it(&claims(&claim.namespace), &format!("{CLAIM_PREFIX}{}", claim.name), uid).await
        }
        Action::DropVolume { name, uid, claim, claim_uid } => {
            // A claim that is not seen, since somebody took its labels away, may be in use.
            let uses = uid_of(&claims(&claim.namespace), &format!("{CLAIM_PREFIX}{}", claim.name)).await?;
            if uses.as_ref() == Some(claim_uid) {
                return Err(Trouble::Outdated);
            }
            drop_it(&volumes, name, uid).await
        }
    }
}

async fn make<K>(api: &Api<K>, object: &K, place: &Place, what: &str) -> Result<(), Trouble>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let name = object.name_any();
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match answer(api.create(&params, object)).await {
        Ok(_) => Ok(()),
        // Its namespace is gone.
        Err(Answer::Code(404, _)) => Err(Trouble::Outdated),
        Err(Answer::Code(409, _)) => match answer(api.get_metadata_opt(&name)).await {
            Ok(Some(there)) if !is_ours(&there.metadata) => Err(Trouble::Taken(
                place.clone(),
                format!(
                    "{what} {name} was not made by Hearth and is left alone: delete it, and Hearth makes its own"
                ),
            )),
            Ok(_) => Err(Trouble::Outdated),
            Err(answer) => Err(Trouble::Failed(format!("{what} {name} cannot be looked up: {answer}"))),
        },
        Err(answer @ Answer::Code(400 | 403 | 422, _)) => Err(Trouble::Refused(
            place.clone(),
            format!("{what} {name} cannot be made, which is tried again: {answer}"),
        )),
        Err(answer) => Err(Trouble::Failed(format!("{what} {name} was not made: {answer}"))),
    }
}

async fn change<K>(api: &Api<K>, name: &str, patch: &serde_json::Value) -> Result<(), Trouble>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match answer(api.patch_metadata(name, &params, &Patch::Merge(patch))).await {
        Ok(_) => Ok(()),
        Err(Answer::Code(404 | 409, _)) => Err(Trouble::Outdated),
        Err(answer) => Err(Trouble::Failed(format!("{name} was not changed: {answer}"))),
    }
}

/// Deletes the very object that was seen, and no other that has its name meanwhile.
async fn drop_it<K>(api: &Api<K>, name: &str, uid: &str) -> Result<(), Trouble>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match answer(api.delete(name, &params)).await {
        Ok(_) | Err(Answer::Code(404, _)) => Ok(()),
        Err(Answer::Code(409, _)) => Err(Trouble::Outdated),
        Err(answer) => Err(Trouble::Failed(format!("{name} is superfluous and was not deleted: {answer}"))),
    }
}

async fn uid_of<K>(api: &Api<K>, name: &str) -> Result<Option<String>, Trouble>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let found = answer(api.get_metadata_opt(name)).await;
    let found = found.map_err(|answer| Trouble::Failed(format!("{name} cannot be looked up: {answer}")))?;
    Ok(found.and_then(|found| found.metadata.uid))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, Answers};
    use super::*;
    use hearth_core::index::DatasetName;

    /// What becomes of an action when the API server answers the methods so.
    async fn outcome(action: Action, answers: Answers) -> Result<(), Trouble> {
        carry_out(&testing::client(answers), &action).await
    }

    fn place() -> Place {
        Place { namespace: "m".into(), dataset: DatasetName::new("n", "d"), uid: "u".into() }
    }

    #[tokio::test]
    async fn what_the_api_server_says_is_understood() {
        const OURS: &str = r#"{"metadata": {"labels": {"app.kubernetes.io/managed-by": "hearth", "hearth.dev/namespace": "n"}}}"#;
        const FOREIGN: &str = r#"{"metadata": {"labels": {"hearth.dev/namespace": "n"}}}"#;
        let make = || Action::MakeClaim(place());
        assert_eq!(outcome(make(), &[("POST", 201, "{}")]).await, Ok(()));
        for answers in [&[("POST", 404, "")][..], &[("POST", 409, ""), ("GET", 200, OURS)]] {
            assert_eq!(outcome(make(), answers).await, Err(Trouble::Outdated));
        }
        let taken = outcome(make(), &[("POST", 409, ""), ("GET", 200, FOREIGN)]).await;
        assert!(
            matches!(&taken, Err(Trouble::Taken(_, note)) if note.starts_with("in namespace m the claim hearth-d was not made by Hearth")),
            "{taken:?}"
        );
        let refused = outcome(make(), &[("POST", 403, "exceeded quota")]).await;
        assert!(
            matches!(&refused, Err(Trouble::Refused(_, note)) if note.ends_with("exceeded quota")),
            "{refused:?}"
        );
        assert!(matches!(outcome(make(), &[("POST", 503, "")]).await, Err(Trouble::Failed(_))));

        let bind =
            || Action::Bind { claim: DatasetName::new("m", "d"), uid: "c".into(), volume_uid: "v".into() };
        assert_eq!(outcome(bind(), &[("PATCH", 200, "{}")]).await, Ok(()));
        assert_eq!(outcome(bind(), &[("PATCH", 409, "")]).await, Err(Trouble::Outdated));

        let drop = || Action::DropClaim { claim: DatasetName::new("m", "d"), uid: "c".into() };
        assert_eq!(outcome(drop(), &[("DELETE", 200, "{}")]).await, Ok(()));
        assert_eq!(outcome(drop(), &[("DELETE", 404, "")]).await, Ok(()));
        assert_eq!(outcome(drop(), &[("DELETE", 409, "")]).await, Err(Trouble::Outdated));
    }

    #[tokio::test]
    async fn a_volume_is_not_taken_from_a_claim_that_is_only_not_seen() {
        let drop = || Action::DropVolume {
            name: "hearth-v".into(),
            uid: "v".into(),
            claim: DatasetName::new("m", "d"),
            claim_uid: "c".into(),
        };
        const LIVES: &[(&str, u16, &str)] = &[("GET", 200, r#"{"metadata": {"uid": "c"}}"#)];
        const MADE_AGAIN: &[(&str, u16, &str)] =
            &[("GET", 200, r#"{"metadata": {"uid": "e"}}"#), ("DELETE", 200, "{}")];
        assert_eq!(outcome(drop(), LIVES).await, Err(Trouble::Outdated));
        assert_eq!(outcome(drop(), MADE_AGAIN).await, Ok(()));
        assert_eq!(outcome(drop(), &[("GET", 404, ""), ("DELETE", 404, "")]).await, Ok(()));
    }
}
