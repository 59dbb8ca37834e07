//! Where an origin is: its URI, taken apart.

use super::OriginError;
use super::error::shown;
use hearth_core::manifest::ManifestOrigin;
use hearth_core::object::AccessDomain;
use std::path::PathBuf;

/// The place that a URI names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// What keys begin with: empty, or ending in `/`.
        prefix: String,
        /// Where the store is; AWS when absent.
        endpoint: Option<String>,
    },
    /// `file:///path`.
    File {
        /// The directory.
        directory: PathBuf,
    },
}

impl Address {
    /// Where a Dataset's origin is.
    pub fn of(spec: &hearth_api::Origin) -> Result<Self, OriginError> {
        let mut address = Self::parse(&spec.uri)?;
        if let Self::S3 { endpoint, .. } = &mut address {
            let given = spec.options.as_ref().and_then(|options| options.endpoint.as_deref());
            *endpoint = given.map(|given| given.trim_end_matches('/').to_ascii_lowercase());
        }
        Ok(address)
    }

    fn parse(uri: &str) -> Result<Self, OriginError> {
        let wrong = |why: &str| OriginError::Refused(format!("origin uri \"{}\" {why}", shown(uri)));
        if let Some(rest) = uri.strip_prefix("s3://") {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(wrong("names no bucket: s3://BUCKET[/PREFIX] is allowed"));
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if !bucket.chars().all(allowed) || bucket.starts_with('.') {
                return Err(wrong("has a bucket that is not of letters, digits, - and . only"));
            }
            if key.contains('?') {
                return Err(wrong("has a \"?\", which is not allowed"));
            }
            let key = key.trim_end_matches('/');
            // A URL with such segments is rewritten on its way.
            if key.split('/').any(|segment| matches!(segment, "." | "..")) {
                return Err(wrong("has a segment \".\" or \"..\", which is not allowed"));
            }
            let prefix = if key.is_empty() { String::new() } else { format!("{key}/") };
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix, endpoint: None });
        }
        if let Some(path) = uri.strip_prefix("file://") {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(wrong("has no absolute path: file:///PATH is allowed"));
            }
            if path.split('/').any(|segment| segment == "..") {
                return Err(wrong("has a segment \"..\", which is not allowed"));
            }
            let segments: Vec<&str> = path.split('/').filter(|s| !matches!(*s, "" | ".")).collect();
            return Ok(Self::File { directory: PathBuf::from(format!("/{}", segments.join("/"))) });
        }
        Err(wrong("has a scheme that is not supported: s3:// and file:// are"))
    }

    /// The one spelling of this place, without a trailing slash. The endpoint is part
    /// of it: two stores may each have a bucket of the same name.
    pub fn uri(&self) -> String {
        match self {
            Self::S3 { bucket, prefix, endpoint } => {
                let uri = format!("s3://{bucket}/{prefix}");
                let uri = uri.trim_end_matches('/');
                match endpoint {
                    Some(endpoint) => format!("{uri}?endpoint={endpoint}"),
                    None => uri.to_owned(),
                }
            }
            Self::File { directory } => format!("file://{}", directory.display()),
        }
    }

    /// As the manifests of a Dataset of `namespace` list it. The identity that it is read with
    /// is part of that: what it may read goes into the cache under its name.
    pub fn listed(namespace: &str, spec: &hearth_api::Origin) -> Result<ManifestOrigin, OriginError> {
        let domain =
            AccessDomain::new(namespace, spec.secret_ref.as_ref().map(|secret| secret.name.as_str()));
        Ok(Self::of(spec)?.in_manifest(domain, &spec.path))
    }

    /// `path` is where its files stand in the dataset's tree.
    fn in_manifest(&self, domain: AccessDomain, path: &str) -> ManifestOrigin {
        let mount = path.trim_matches('/');
        let key_prefix = match self {
            Self::S3 { prefix, .. } => prefix.clone(),
            // Keys of a directory are relative to it.
            Self::File { .. } => String::new(),
        };
        ManifestOrigin {
            domain,
            uri: self.uri(),
            key_prefix,
            mount: if mount.is_empty() { String::new() } else { format!("{mount}/") },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_manifest(address: &Address, path: &str) -> ManifestOrigin {
        address.in_manifest(AccessDomain::new("n", None), path)
    }

    #[test]
    fn a_place_has_one_spelling() {
        for (uri, canonical, prefix) in [
            ("s3://bucket", "s3://bucket", ""),
            ("s3://bucket/", "s3://bucket", ""),
            ("s3://bucket/a/b//", "s3://bucket/a/b", "a/b/"),
            ("s3://bucket/a//b", "s3://bucket/a//b", "a//b/"),
            ("file:///data//set/./", "file:///data/set", ""),
        ] {
            let address = Address::parse(uri).unwrap();
            assert_eq!(address.uri(), canonical);
            assert_eq!(in_manifest(&address, "/").key_prefix, prefix);
        }
        let spec = |endpoint: &str| {
            let options = serde_json::json!({"endpoint": endpoint});
            let spec = serde_json::json!({"uri": "s3://b/p/", "options": options});
            Address::of(&serde_json::from_value(spec).unwrap()).unwrap().uri()
        };
        assert_eq!(spec("HTTP://Minio:9000/"), "s3://b/p?endpoint=http://minio:9000");
        let bucket = Address::parse("s3://b").unwrap();
        assert_eq!(in_manifest(&bucket, "/x/y/").mount, "x/y/");
        assert_eq!(in_manifest(&bucket, "/").mount, "");
    }

    #[test]
    fn what_is_wrong_is_one_sentence() {
        for uri in [
            "gs://b",
            "s3://",
            "s3:///k",
            "s3://b/../c",
            "s3://b@evil/x",
            "file://host/x",
            "file:///../x",
            "",
        ] {
            let error = Address::parse(uri).unwrap_err();
            assert!(matches!(error, OriginError::Refused(_)));
            assert!(error.to_string().starts_with("origin uri"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_uri_is_its_own(uri in "(s3://[a-z]{3}|file://)(/\\PC{0,5}){0,4}") {
            if let Ok(address) = Address::parse(&uri) {
                prop_assert_eq!(Address::parse(&address.uri()).map(|again| again.uri()), Ok(address.uri()));
            }
        }
    }
}
