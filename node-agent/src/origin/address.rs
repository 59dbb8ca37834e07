//! Where an origin is: its URI, taken apart.

use super::OriginError;
use super::error::shown;
use super::{hdfs, site};
use hearth_api::OriginOptions;
use hearth_core::manifest::ManifestOrigin;
use hearth_core::object::AccessDomain;
use std::path::PathBuf;

/// The place that a URI names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `s3://bucket/prefix`.
    S3(Bucket),
    /// `gs://bucket/prefix`.
    Gs(Bucket),
    /// `az://container/prefix`.
    Az {
        /// The container.
        container: Bucket,
        /// Whose it is.
        account: String,
    },
    /// `http://host/path` or `https://host/path`.
    Site(site::Place),
    /// `hdfs://host/path`.
    Hdfs(hdfs::Place),
    /// `file:///path`.
    File {
        /// The directory.
        directory: PathBuf,
    },
}

/// A bucket, and what is meant of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What keys begin with: empty, or ending in `/`.
    pub prefix: String,
    /// Where the store is; where its scheme says when absent.
    pub endpoint: Option<String>,
}

impl Address {
    /// Where a Dataset's origin is.
    pub fn of(spec: &hearth_api::Origin) -> Result<Self, OriginError> {
        Self::parse(&spec.uri, spec.options.as_ref())
    }

    fn parse(uri: &str, options: Option<&OriginOptions>) -> Result<Self, OriginError> {
        let endpoint = options.and_then(|options| options.endpoint.as_deref());
        let endpoint = endpoint.map(|given| given.trim_end_matches('/').to_ascii_lowercase());
        let wrong = |why: &str| OriginError::Refused(format!("origin uri \"{}\" {why}", shown(uri)));
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Err(wrong(
                "has no scheme: s3://, gs://, az://, http(s)://, hdfs:// and file:// are supported",
            ));
        };
        match scheme {
            "s3" => Bucket::parse(rest, endpoint).map(Self::S3).map_err(|why| wrong(&why)),
            "gs" => Bucket::parse(rest, endpoint).map(Self::Gs).map_err(|why| wrong(&why)),
            "az" => {
                let container = Bucket::parse(rest, endpoint).map_err(|why| wrong(&why))?;
                let plain = |name: &&str| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
                };
                let account = options.and_then(|options| options.account.as_deref()).filter(plain).ok_or_else(|| {
                    wrong(
                        "needs options.account, the storage account's name of lower-case letters and digits",
                    )
                })?;
                Ok(Self::Az { container, account: account.to_owned() })
            }
            "file" => directory(rest).map(|directory| Self::File { directory }).map_err(wrong),
            "http" | "https" => {
                let list = options.is_some_and(|options| options.file_list);
                site::Place::parse(uri, list).map(Self::Site).map_err(wrong)
            }
            "hdfs" => hdfs::Place::parse(rest, options).map(Self::Hdfs).map_err(|why| wrong(&why)),
            _ => Err(wrong(
                "has a scheme that is not supported: s3://, gs://, az://, http(s)://, hdfs:// and file:// are",
            )),
        }
    }

    /// The one spelling of this place. The endpoint is part
    /// of it: two stores may each have a bucket of the same name.
    pub fn uri(&self) -> String {
        match self {
            Self::S3(bucket) => bucket.uri("s3", None),
            Self::Gs(bucket) => bucket.uri("gs", None),
            Self::Az { container, account } => container.uri("az", Some(account)),
            Self::Site(place) => place.uri(),
            Self::Hdfs(place) => place.uri(),
            Self::File { directory } => format!("file://{}", directory.display()),
        }
    }

    /// As the manifests of a Dataset of `namespace` list it. The identity that it is read with
    /// is part of that: what it may read goes into the cache under its name.
    pub fn listed(namespace: &str, spec: &hearth_api::Origin) -> Result<ManifestOrigin, OriginError> {
        let secret = spec.secret_ref.as_ref().map(|secret| secret.name.as_str());
        let domain = match &spec.service_account_ref {
            Some(account) => AccessDomain::of_account(namespace, &account.name),
            None => AccessDomain::new(namespace, secret),
        };
        Ok(Self::of(spec)?.in_manifest(domain, &spec.path))
    }

    /// `path` is where its files stand in the dataset's tree.
    fn in_manifest(&self, domain: AccessDomain, path: &str) -> ManifestOrigin {
        let mount = path.trim_matches('/');
        let key_prefix = match self {
            Self::S3(bucket) | Self::Gs(bucket) | Self::Az { container: bucket, .. } => bucket.prefix.clone(),
            // Keys of a directory are relative to it.
            Self::Site(_) | Self::Hdfs(_) | Self::File { .. } => String::new(),
        };
        ManifestOrigin {
            domain,
            uri: self.uri(),
            key_prefix,
            mount: if mount.is_empty() { String::new() } else { format!("{mount}/") },
        }
    }
}

impl Bucket {
    fn parse(rest: &str, endpoint: Option<String>) -> Result<Self, String> {
        let (name, key) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err("names no bucket: SCHEME://BUCKET[/PREFIX] is allowed".to_owned());
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '$');
        if !name.chars().all(allowed) || name.starts_with('.') {
            return Err("has a bucket that is not of letters, digits, - and . only".to_owned());
        }
        if key.contains('?') {
            return Err("has a \"?\", which is not allowed".to_owned());
        }
        let key = key.trim_end_matches('/');
        // A URL with such segments is rewritten on its way.
        if key.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("has a segment \".\" or \"..\", which is not allowed".to_owned());
        }
        let prefix = if key.is_empty() { String::new() } else { format!("{key}/") };
        Ok(Self { name: name.to_owned(), prefix, endpoint })
    }

    fn uri(&self, scheme: &str, account: Option<&str>) -> String {
        let place = format!("{scheme}://{}/{}", self.name, self.prefix);
        let mut uri = place.trim_end_matches('/').to_owned();
        let parameters = [("account", account), ("endpoint", self.endpoint.as_deref())];
        for (name, value) in parameters {
            if let Some(value) = value {
                uri.push(if uri.contains('?') { '&' } else { '?' });
                uri.push_str(&format!("{name}={value}"));
            }
        }
        uri
    }
}

fn directory(path: &str) -> Result<PathBuf, &'static str> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err("has no absolute path: file:///PATH is allowed");
    }
    if path.split('/').any(|segment| segment == "..") {
        return Err("has a segment \"..\", which is not allowed");
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !matches!(*s, "" | ".")).collect();
    Ok(PathBuf::from(format!("/{}", segments.join("/"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_manifest(address: &Address, path: &str) -> ManifestOrigin {
        address.in_manifest(AccessDomain::new("n", None), path)
    }

    fn parse(uri: &str) -> Result<Address, OriginError> {
        let account = Some("acct".to_owned());
        Address::parse(uri, Some(&OriginOptions { account, ..OriginOptions::default() }))
    }

    #[test]
    fn a_place_has_one_spelling() {
        for (uri, canonical, prefix) in [
            ("s3://bucket", "s3://bucket", ""),
            ("s3://bucket/", "s3://bucket", ""),
            ("s3://bucket/a/b//", "s3://bucket/a/b", "a/b/"),
            ("s3://bucket/a//b", "s3://bucket/a//b", "a//b/"),
            ("gs://bucket/a", "gs://bucket/a", "a/"),
            ("az://box/a", "az://box/a?account=acct", "a/"),
            ("az://$web", "az://$web?account=acct", ""),
            ("https://H:443/a//b/./c", "https://h/a//b/c", ""),
            ("http://h", "http://h/", ""),
            ("hdfs://NN:9000/a//b/", "hdfs://nn:9000/a/b", ""),
            ("file:///data//set/./", "file:///data/set", ""),
        ] {
            let address = parse(uri).unwrap();
            assert_eq!(address.uri(), canonical);
            assert_eq!(in_manifest(&address, "/").key_prefix, prefix);
        }
        let spec = |uri: &str, options: serde_json::Value| {
            let spec = serde_json::json!({"uri": uri, "options": options});
            Address::of(&serde_json::from_value(spec).unwrap()).unwrap().uri()
        };
        let minio = serde_json::json!({"endpoint": "HTTP://Minio:9000/"});
        assert_eq!(spec("s3://b/p/", minio), "s3://b/p?endpoint=http://minio:9000");
        let azurite = serde_json::json!({"endpoint": "http://h:1", "account": "acct"});
        assert_eq!(spec("az://b/p/", azurite), "az://b/p?account=acct&endpoint=http://h:1");
        let bucket = parse("s3://b").unwrap();
        assert_eq!(in_manifest(&bucket, "/x/y/").mount, "x/y/");
        assert_eq!(in_manifest(&bucket, "/").mount, "");
    }

    #[test]
    fn what_is_wrong_is_one_sentence() {
        for uri in [
            "ftp://b",
            "s3://",
            "gs:///k",
            "s3://b/../c",
            "az://b/a/./c",
            "s3://b@evil/x",
            "http://",
            "http://u@h/",
            "http://h/?x",
            "hdfs://",
            "hdfs://u@h/x",
            "file://host/x",
            "file:///../x",
            "",
        ] {
            let error = parse(uri).unwrap_err();
            assert!(matches!(error, OriginError::Refused(_)));
            assert!(error.to_string().starts_with("origin uri"), "{error}");
        }
        for account in [None, Some(""), Some("a.evil/")] {
            let options = OriginOptions { account: account.map(str::to_owned), ..OriginOptions::default() };
            let error = Address::parse("az://box", Some(&options)).unwrap_err().to_string();
            assert!(error.contains("needs options.account"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_uri_is_its_own(uri in "((s3|gs|https?|hdfs)://[a-z]{3}|file://)(/\\PC{0,5}){0,4}") {
            if let Ok(address) = parse(&uri) {
                prop_assert_eq!(parse(&address.uri()).map(|again| again.uri()), Ok(address.uri()));
            }
        }
    }
}
