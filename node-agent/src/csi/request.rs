//! What kubelet asks, checked. Pure.

use super::proto::csi::NodePublishVolumeRequest;
use super::proto::csi::volume_capability::AccessType;
use super::proto::csi::volume_capability::access_mode::Mode;
use crate::events::PodReference;
use crate::views::VolumeRequest;
use hearth_core::volume::VolumeAttributes;
use std::path::{Path, PathBuf};

/// What kubelet adds to the attributes begins so; it cannot be forged, as kubelet's own
/// words replace the pod's.
const KUBELET: &str = "csi.storage.k8s.io/";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// What external provisioners add.
const PROVISIONER: &str = "storage.kubernetes.io/csiProvisionerIdentity";

/// The volume that a call names.
pub(super) fn volume_id(id: &str) -> Result<String, String> {
    match id {
        "" => Err("volume_id is empty: it must name the volume".to_owned()),
        id => Ok(id.to_owned()),
    }
}

/// Where a call takes a volume to be: anywhere, as none is at a wrong place.
pub(super) fn volume_path(path: &str) -> Result<PathBuf, String> {
    match path {
        "" => Err("volume_path is empty: it must be where the volume is published".to_owned()),
        path => Ok(path.into()),
    }
}

/// The target that a call names.
pub(super) fn target(what: &str, path: &str) -> Result<PathBuf, String> {
    let path = Path::new(path);
    match path.is_absolute() {
        true => Ok(path.to_owned()),
        false => Err(format!("{what} must be an absolute path, and it is \"{}\"", path.display())),
    }
}

/// What is to be published.
pub(super) fn publish(request: &NodePublishVolumeRequest) -> Result<VolumeRequest, String> {
    let volume = volume_id(&request.volume_id)?;
    let target = target("target_path", &request.target_path)?;
    let capability = request.volume_capability.as_ref().ok_or("volume_capability is missing")?;
    if !matches!(capability.access_type, Some(AccessType::Mount(_))) {
        return Err("a dataset is a volume of files: volumeMode must be Filesystem".to_owned());
    }
    let context = &request.volume_context;
    let ephemeral = context.get(EPHEMERAL).is_some_and(|ephemeral| ephemeral == "true");
    if ephemeral && !request.readonly {
        return Err("a dataset is read-only: set csi.readOnly: true on the volume".to_owned());
    }
    let mode = capability.access_mode.map(|mode| mode.mode());
    let writes = matches!(
        mode,
        Some(
            Mode::MultiNodeSingleWriter
                | Mode::MultiNodeMultiWriter
                | Mode::SingleNodeSingleWriter
                | Mode::SingleNodeMultiWriter
        )
    );
    // Inline volumes have no access mode of their own: kubelet says SINGLE_NODE_WRITER.
    if writes {
        return Err("a dataset is read-only: accessModes must be [ReadOnlyMany]".to_owned());
    }
    let namespace = context.get(POD_NAMESPACE).filter(|namespace| !namespace.is_empty()).ok_or(
        "the pod's namespace is missing: the CSIDriver object hearth.dev must have podInfoOnMount: true",
    )?;
    let known = |name: &str| {
        VolumeAttributes::NAMES.contains(&name) || name.starts_with(KUBELET) || name == PROVISIONER
    };
    if let Some(unknown) = context.keys().find(|name| !known(name)) {
        return Err(format!(
            "volumeAttributes.{} is unknown: allowed are {}",
            unknown.chars().take(80).collect::<String>().escape_debug(),
            VolumeAttributes::NAMES.join(", ")
        ));
    }
    let attributes = VolumeAttributes::of(|name| context.get(name).cloned());
    let said = |name: &str| context.get(name).filter(|value| !value.is_empty()).cloned();
    let pod = said(POD_UID).map(|uid| PodReference {
        namespace: namespace.clone(),
        name: said(POD_NAME).unwrap_or_default(),
        uid,
    });
    Ok(VolumeRequest { volume, target, namespace: namespace.clone(), pod, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::proto::csi::VolumeCapability;
    use crate::csi::proto::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn request(context: &[(&str, &str)]) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: "csi-1".into(),
            target_path: "/var/lib/kubelet/pods/1/mount".into(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume {})),
                access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            }),
            readonly: true,
            volume_context: context.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    const INLINE: [(&str, &str); 5] =
        [(POD_NAMESPACE, "n"), (POD_NAME, "p"), (POD_UID, "u"), (EPHEMERAL, "true"), ("dataset", "d")];

    #[test]
    fn an_inline_volume() {
        let volume = publish(&request(&INLINE)).unwrap();
        assert_eq!((volume.volume.as_str(), volume.namespace.as_str()), ("csi-1", "n"));
        assert_eq!(volume.pod.map(|pod| (pod.name, pod.uid)), Some(("p".into(), "u".into())));
        assert_eq!(volume.attributes, VolumeAttributes { dataset: Some("d".into()), ..Default::default() });
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_sentence() {
        type Change = fn(&mut NodePublishVolumeRequest);
        let cases: [(Change, &str); 9] = [
            (|request| request.volume_id.clear(), "volume_id"),
            (|request| request.target_path = "x".into(), "target_path"),
            (|request| request.volume_capability = None, "volume_capability"),
            (|request| request.readonly = false, "readOnly: true"),
            (|request| _ = request.volume_context.remove(POD_NAMESPACE), "podInfoOnMount"),
            (|request| _ = request.volume_context.insert("glob".into(), "x".into()), "volumeAttributes.glob"),
            (|request| request.volume_capability.as_mut().unwrap().access_type = None, "volumeMode"),
            (
                |request| {
                    let block = AccessType::Block(BlockVolume {});
                    request.volume_capability.as_mut().unwrap().access_type = Some(block);
                },
                "volumeMode",
            ),
            (
                |request| {
                    let mode = AccessMode { mode: Mode::MultiNodeMultiWriter.into() };
                    request.volume_capability.as_mut().unwrap().access_mode = Some(mode);
                },
                "ReadOnlyMany",
            ),
        ];
        for (change, expected) in cases {
            let mut request = request(&INLINE);
            change(&mut request);
            let why = publish(&request).unwrap_err();
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }
}
