//! Where the programs of the test cluster come from: `KUBEBUILDER_ASSETS` when set, otherwise built once from Go modules.

use std::path::PathBuf;

use anyhow::Result;

use crate::downloads;
use crate::go_build::GoProgram;

const CONTROL_PLANE: GoProgram = GoProgram {
    module: "controlplane",
    package: ".",
    // Without the version the API server calls itself v0.0.0-master and refuses to serve newer APIs.
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.4 -X k8s.io/client-go/pkg/version.gitVersion=v1.36.4",
    note: "Kubernetes 1.36.4 and etcd 3.6.8, about 9 minutes on 2 cores",
    names: &[
        "etcd",
        "kube-apiserver",
        "kube-scheduler",
        "kube-controller-manager",
        "kubelet",
        "kube-proxy",
        "kubectl",
    ],
};

const S3_SERVER: GoProgram = GoProgram {
    module: "s3server",
    package: "github.com/versity/versitygw/cmd/versitygw",
    ldflags: "-s -w",
    note: "the S3 server versitygw 1.8.0, about a minute",
    names: &["versitygw"],
};

const GCS_SERVER: GoProgram = GoProgram {
    module: "gcsserver",
    package: "github.com/fsouza/fake-gcs-server",
    ldflags: "-s -w",
    note: "the server fake-gcs-server 1.56.1, about a minute",
    names: &["fake-gcs-server"],
};

const MINIO: GoProgram = GoProgram {
    module: "minio",
    package: "github.com/minio/minio",
    ldflags: "-s -w",
    note: "the S3 server MinIO, for its token service, about 6 minutes on 2 cores",
    names: &["minio"],
};

const CSI_SUITE: GoProgram = GoProgram {
    module: "csisanity",
    package: ".",
    ldflags: "-s -w",
    note: "the conformance suite of CSI drivers, csi-test 5.6.0, half a minute",
    names: &["csisanity"],
};

/// The path of a Kubernetes program or etcd, by its usual name.
///
/// The folder in `KUBEBUILDER_ASSETS` is asked first; what it lacks (it often has no scheduler) is built.
///
/// # Errors
/// When the program has to be built and cannot be.
pub fn kubernetes(name: &str) -> Result<PathBuf> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
        let path = PathBuf::from(assets).join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    Ok(CONTROL_PLANE.provide()?.join(name))
}

/// The path of the S3 server.
///
/// # Errors
/// When it has to be built and cannot be.
pub fn s3_server() -> Result<PathBuf> {
    Ok(S3_SERVER.provide()?.join("versitygw"))
}

/// The path of the server that speaks as Google Cloud Storage does.
///
/// # Errors
/// When it has to be built and cannot be.
pub fn gcs_server() -> Result<PathBuf> {
    Ok(GCS_SERVER.provide()?.join("fake-gcs-server"))
}

/// The path of the S3 server that has a token service.
///
/// # Errors
/// When it has to be built and cannot be.
pub fn minio() -> Result<PathBuf> {
    Ok(MINIO.provide()?.join("minio"))
}

/// The paths of Node.js and of the script of Azurite, the server that speaks as Azure Blob Storage does.
///
/// # Errors
/// When they are not there and cannot be downloaded.
pub fn azurite() -> Result<(PathBuf, PathBuf)> {
    let packages = downloads::node_packages("azurite")?;
    Ok((downloads::node()?, packages.join("node_modules/azurite/dist/src/blob/main.js")))
}

/// The path of Java and of the archives of Hadoop, whose name nodes and data nodes are programs of it.
///
/// # Errors
/// When the archives are not there and cannot be downloaded.
pub fn hadoop() -> Result<(PathBuf, PathBuf)> {
    Ok((PathBuf::from("java"), downloads::java_archives("hdfs")?))
}

/// The path of the conformance suite of CSI drivers.
///
/// # Errors
/// When it has to be built and cannot be.
pub fn csi_suite() -> Result<PathBuf> {
    Ok(CSI_SUITE.provide()?.join("csisanity"))
}

/// The path of a program of Debian's `prometheus` package (`prometheus`, `promtool`): the installed one, or else the
/// package's content without an installation, since that would start a service.
///
/// # Errors
/// When it is not installed and cannot be downloaded.
pub fn prometheus(name: &str) -> Result<PathBuf> {
    installed_or_unpacked(name, "prometheus", "usr/bin")
}

/// The path of nginx, found or unpacked likewise.
///
/// # Errors
/// When it is not installed and cannot be downloaded.
pub fn nginx() -> Result<PathBuf> {
    installed_or_unpacked("nginx", "nginx", "usr/sbin")
}

fn installed_or_unpacked(program: &str, package: &str, folder: &str) -> Result<PathBuf> {
    let installed = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.exists()));
    match installed {
        Some(path) => Ok(path),
        None => Ok(downloads::debian_package(package)?.join(folder).join(program)),
    }
}

/// Builds what the demo needs and is not there yet.
///
/// # Errors
/// When something cannot be built.
pub fn prepare_demo() -> Result<()> {
    for name in CONTROL_PLANE.names {
        kubernetes(name)?;
    }
    s3_server().map(drop)
}

/// Builds everything that is not there yet, so that later look-ups cost nothing.
///
/// # Errors
/// When something cannot be built.
pub fn prepare() -> Result<()> {
    prepare_demo()?;
    gcs_server()?;
    minio()?;
    azurite()?;
    hadoop()?;
    csi_suite()?;
    nginx()?;
    prometheus("prometheus")?;
    prometheus("promtool")?;
    Ok(())
}
