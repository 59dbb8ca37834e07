//! The origins of a `Dataset`: where its objects are, and how they are reached.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One place that objects come from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.uri.startsWith('file://') || !has(self.secretRef)").message("secretRef is for stores; a file:// origin takes none"),
    validation = Rule::new("!self.uri.startsWith('file://') || !has(self.options)").message("options are for stores; a file:// origin takes none"),
    validation = Rule::new("!self.uri.startsWith('hdfs://') || !has(self.secretRef)").message("secretRef is for stores that ask for credentials; an hdfs:// origin takes none, since Kerberos is not supported"),
    validation = Rule::new("!self.uri.startsWith('hdfs://') || !has(self.options) || !(has(self.options.endpoint) || has(self.options.proxy) || has(self.options.caBundle) || has(self.options.anonymous))").message("options.endpoint, proxy, caBundle and anonymous are for what is reached over HTTP; an hdfs:// origin takes none"),
    validation = Rule::new("self.uri.startsWith('hdfs://') || !has(self.options) || !(has(self.options.nameNodes) || has(self.options.user))").message("options.nameNodes and options.user are for hdfs:// origins"),
    validation = Rule::new("!has(self.options) || !has(self.options.nameNodes) || !self.uri.matches('^hdfs://[^/]*:')").message("options.nameNodes are those of a name service, which has no port"),
    validation = Rule::new("self.uri.startsWith('az://') == (has(self.options) && has(self.options.account))").message("options.account is the storage account of an az:// origin, which must name it; others take none"),
    validation = Rule::new("self.uri.startsWith('s3://') || !has(self.options) || !(has(self.options.region) || has(self.options.addressing))").message("options.region and options.addressing are for s3:// origins"),
    validation = Rule::new("!self.uri.startsWith('http') || !has(self.options) || !has(self.options.endpoint)").message("options.endpoint is for stores; an http(s):// origin names its host in the uri"),
    validation = Rule::new("!has(self.options) || !has(self.options.fileList) || !self.options.fileList || (self.uri.startsWith('http') && !self.uri.endsWith('/'))").message("options.fileList is for http(s):// origins whose uri is that of a list"),
    validation = Rule::new("!has(self.secretRef) || !has(self.options) || !has(self.options.anonymous) || !self.options.anonymous").message("options.anonymous and secretRef exclude each other"),
    validation = Rule::new("!has(self.serviceAccountRef) || self.uri.startsWith('s3://') || self.uri.startsWith('gs://') || self.uri.startsWith('az://')").message("serviceAccountRef is for s3://, gs:// and az:// origins"),
    validation = Rule::new("!has(self.serviceAccountRef) || !has(self.secretRef)").message("serviceAccountRef and secretRef exclude each other"),
    validation = Rule::new("!has(self.serviceAccountRef) || !has(self.options) || !has(self.options.anonymous) || !self.options.anonymous").message("options.anonymous and serviceAccountRef exclude each other")
)]
pub struct Origin {
    /// s3://BUCKET/PREFIX for S3 and compatible stores, gs://BUCKET/PREFIX for Google Cloud
    /// Storage, az://CONTAINER/PREFIX for Azure Blob Storage, http(s)://HOST/PATH for a file of
    /// a web server, or, with a slash at the end, for all that an index page links to;
    /// `hdfs://HOST[:PORT]/PATH` or hdfs://NAMESERVICE/PATH for a directory of HDFS; or
    /// file:///PATH for a directory that every node has, such as an NFS or Lustre mount.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?$') || self.matches('^gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^?#]*)?$') || self.matches('^az://([a-z0-9][a-z0-9-]{1,61}[a-z0-9]|[$](root|web))(/[^?#]*)?$') || self.matches('^https?://[^/?#@]+(/[^?#]*)?$') || self.matches('^hdfs://[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[^?#]*)?$') || self.matches('^file:///[^?#]+$')").message("uri must be s3://BUCKET[/PREFIX], gs://BUCKET[/PREFIX], az://CONTAINER[/PREFIX], http(s)://HOST[:PORT]/PATH, hdfs://HOST[:PORT][/PATH] or file:///PATH"))]
    pub uri: String,

    /// Where its files stand in the dataset's tree.
    #[serde(default = "root")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains('//') && !('..' in self.split('/')) && !('.' in self.split('/'))").message("path must begin with / and have no //, . or .. in it"))]
    pub path: String,

    /// A Secret in the Dataset's namespace. For s3:// it has the keys AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY and optionally AWS_SESSION_TOKEN; for gs://
    /// GOOGLE_APPLICATION_CREDENTIALS_JSON, the JSON key of a service account; for az://
    /// AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID,
    /// AZURE_CLIENT_ID and AZURE_CLIENT_SECRET; for http(s):// token, or username and
    /// password. HEARTH_ENDPOINTS names the endpoints that it is for, such as
    /// `https://data.example:8443`, one or several: without it, what is sent as it is (tokens,
    /// passwords, signatures in URLs) goes to Google's and Azure's own hosts only. Agents may
    /// read it only when a RoleBinding in that namespace grants them the ClusterRole
    /// hearth-secret-reader. Without it and serviceAccountRef the agents' own identity is used,
    /// when their configuration lets this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,

    /// A ServiceAccount in the Dataset's namespace, with whose cloud identity an s3://, gs:// or
    /// az:// origin is read. Its annotations say which that is, as its cloud has them: for s3://
    /// eks.amazonaws.com/role-arn; for gs:// perhaps iam.gke.io/gcp-service-account; for az://
    /// azure.workload.identity/client-id and perhaps azure.workload.identity/tenant-id. The
    /// annotation hearth.dev/endpoints says of it what HEARTH_ENDPOINTS says of a Secret. Agents
    /// may ask for its tokens only when a RoleBinding in that namespace grants them the
    /// ClusterRole hearth-token-requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountReference>,

    /// How the store is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<OriginOptions>,
}

fn root() -> String {
    "/".to_owned()
}

/// Names a Secret in the Dataset's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Names a ServiceAccount in the Dataset's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ServiceAccountReference {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How a store is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginOptions {
    /// Base URL of the store, such as `https://minio.example:9000`; the cloud that the scheme
    /// is of when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#]+/?$')").message("endpoint must be http(s)://HOST[:PORT]"))]
    pub endpoint: Option<String>,

    /// Longest time that the store may send nothing, such as 30s, from 1s to 10m; that of the
    /// agents' configuration when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(s|m))+$') && duration(self) >= duration('1s') && duration(self) <= duration('10m')").message("timeout must be a duration from 1s to 10m, such as 30s"))]
    pub timeout: Option<String>,

    /// Requests that each node has under way at one time at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: Option<i32>,

    /// Requests that each node makes in a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests_per_second: Option<i32>,

    /// Bytes that each node takes in a second at most, such as 100Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("bytesPerSecond must be a positive quantity of bytes, such as 100Mi"))]
    pub bytes_per_second: Option<String>,

    /// URL of a proxy for all requests, of a host that origin.allowedProxies of the agents'
    /// configuration names; that of their environment when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#@]+/?$')").message("proxy must be http(s)://HOST[:PORT]"))]
    pub proxy: Option<String>,

    /// PEM of authorities to trust besides those that the agents trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE-----')").message("caBundle must be PEM of certificates"))]
    pub ca_bundle: Option<String>,

    /// Region that requests are signed for; us-east-1 when absent, which most
    /// compatible stores accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,

    /// Name of the storage account that an az:// container is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 24), regex(pattern = "^[a-z0-9]+$"))]
    pub account: Option<String>,

    /// Name nodes of the name service that an hdfs:// origin names, `HOST[:PORT]`; port 8020 when
    /// absent. They are part of what the origin is: with others its files are fetched anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(
            length(max = 260),
            regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?$")
        )
    )]
    pub name_nodes: Vec<String>,

    /// User that an hdfs:// origin is read as; hearth when absent. HDFS without Kerberos, the
    /// only one that is supported, takes everybody's word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$"))]
    pub user: Option<String>,

    /// Whether the store is asked without credentials, as public data can be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,

    /// Whether the URL of an http(s):// origin is that of a list: a text of one path or URL a
    /// line, of files below the list's folder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub file_list: bool,

    /// Whether the bucket stands in the path (Path) or in the host name (VirtualHosted).
    /// When absent: Path with an endpoint, VirtualHosted without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressing: Option<Addressing>,
}

/// Where the bucket stands in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Addressing {
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key`.
    VirtualHosted,
}
