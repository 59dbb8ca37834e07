//! Reads the list of files that a Dataset names.

use super::listing::Open;
use super::unpack::{self, UnpackError};
use crate::origin::{Found, Origin, OriginError, Urgency, Wanted, shown};
use futures::TryStreamExt;
use hearth_api::{ConfigMapKey, Dataset, FileListSource};
use hearth_core::file_list::FileList;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use std::time::Duration;

const API_PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of a list as it lies at the origin.
const LONGEST_PACKED: u64 = 256 << 20;

/// The files that the dataset is of, when it names a list of them.
pub(super) async fn load(
    client: &kube::Client,
    dataset: &Dataset,
    origins: &[Open],
) -> Result<Option<FileList>, OriginError> {
    let Some(source) = dataset.spec.files.as_ref().and_then(|files| files.list.as_ref()) else {
        return Ok(None);
    };
    let (at, bytes) = match source {
        FileListSource { config_map: Some(key), path: None } => {
            let namespace = dataset.metadata.namespace.as_deref().unwrap_or_default();
            let at = format!("key {} of ConfigMap {namespace}/{}", shown(&key.key), shown(&key.name));
            let bytes = of_config_map(client, namespace, key, &at).await?;
            (at, bytes)
        }
        FileListSource { config_map: None, path: Some(path) } => {
            let bytes = of_origin(origins, path.trim_start_matches('/')).await?;
            (format!("the file {}", shown(path)), bytes)
        }
        _ => {
            return Err(OriginError::Refused(
                "spec.files.list names configMap and path, or neither: one of them is allowed".to_owned(),
            ));
        }
    };
    let unpacked = move || unpack::unpack(bytes).and_then(|text| Ok(FileList::parse(text)?));
    let list = tokio::task::spawn_blocking(unpacked)
        .await
        .map_err(|error| OriginError::Unavailable(format!("reading the list of files ended: {error}")))?;
    let wrong =
        |error: UnpackError| OriginError::Refused(format!("spec.files.list: {at} is no list: {error}"));
    list.map(Some).map_err(wrong)
}

async fn of_config_map(
    client: &kube::Client,
    namespace: &str,
    key: &ConfigMapKey,
    at: &str,
) -> Result<Vec<u8>, OriginError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = match tokio::time::timeout(API_PATIENCE, api.get_opt(&key.name)).await {
        Ok(Ok(map)) => map.unwrap_or_default(),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            return Err(OriginError::Denied(format!(
                "spec.files.list: the node agents may not read {at}: grant it by a RoleBinding of the ClusterRole hearth-secret-reader in that namespace"
            )));
        }
        Ok(Err(error)) => {
            let why = shown(&error.to_string());
            return Err(OriginError::Unavailable(format!("spec.files.list: {at} cannot be read: {why}")));
        }
        Err(_) => {
            return Err(OriginError::Unavailable(format!(
                "spec.files.list: the API server did not answer in time when asked for {at}"
            )));
        }
    };
    let text = map.data.unwrap_or_default().remove(&key.key).map(String::into_bytes);
    let binary = || map.binary_data.unwrap_or_default().remove(&key.key).map(|bytes| bytes.0);
    text.or_else(binary).ok_or_else(|| OriginError::NotFound(format!("spec.files.list: {at} does not exist")))
}

/// Reads a file of the dataset's tree, as it is at the origin now.
async fn of_origin(origins: &[Open], path: &str) -> Result<Vec<u8>, OriginError> {
    for Open { origin, named } in origins {
        let Some(below) = path.strip_prefix(named.mount.as_str()) else { continue };
        let key = format!("{}{below}", named.key_prefix);
        // Found again each time: it may be another by then.
        let read = || async {
            match origin.find(below).await? {
                Some(found) => read(origin.as_ref(), &key, &found).await.map(Some),
                None => Ok(None),
            }
        };
        if let Some(bytes) = origin.retries().run(read).await? {
            return Ok(bytes);
        }
    }
    Err(OriginError::NotFound(format!(
        "spec.files.list: no origin of the dataset has the file {}",
        shown(path)
    )))
}

async fn read(origin: &dyn Origin, key: &str, found: &Found) -> Result<Vec<u8>, OriginError> {
    let size =
        usize::try_from(found.size).ok().filter(|_| found.size <= LONGEST_PACKED).ok_or_else(|| {
            OriginError::Refused(format!(
                "spec.files.list: {} has {} bytes, and {LONGEST_PACKED} are allowed",
                shown(key),
                found.size
            ))
        })?;
    let mut bytes = Vec::with_capacity(size);
    // No range of an empty object can be asked for.
    if size > 0 {
        let wanted = Wanted { key, validator: &found.validator, size: found.size, range: 0..found.size };
        let _turn = origin.turn(Urgency::Background).await;
        let mut stream = origin.get(wanted).await?;
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok(bytes)
}
