//! HDFS: a name node and a data node of Hadoop, without Kerberos.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hdfs_native::{Client, ClientBuilder, WriteOptions};

use super::{CONTAINER, Store};
use crate::binaries;
use crate::control_plane::START;
use crate::kube_access::PATIENCE;
use crate::ports;
use crate::process::{Process, Program};
use crate::wait::eventually;

/// As whom the servers run, and who may do everything there.
const ADMINISTRATOR: &str = "hdfs";

/// The running cluster, which takes everybody's word for who they are. [`CONTAINER`] is a directory of it.
#[derive(Debug)]
pub struct Hdfs {
    name_node: String,
    client: Client,
    program: Program,
    server: Process,
    _data_node: Process,
}

impl Hdfs {
    /// Starts it on a folder in `dir`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(dir: &Path) -> Result<Self> {
        let dir = dir.join("hdfs");
        std::fs::create_dir_all(&dir).context("cannot make the folder of HDFS")?;
        let name_node = format!("127.0.0.1:{}", ports::free()?);
        let server = |name, class| server(name, class, &name_node, &dir);
        let mut format = server("format", "namenode.NameNode")?.arg("-format").start()?;
        // It waits for its name node, so that both start at one time.
        let mut data_node = server("data-node", "datanode.DataNode")?.start()?;
        let formatted = format.ended(START).await?;
        ensure!(formatted.success(), "HDFS cannot be formatted:\n{}", format.log_tail(20));
        let program = server("name-node", "namenode.NameNode")?;
        let mut server = program.start()?;
        let client = ClientBuilder::new()
            .with_url(format!("hdfs://{name_node}"))
            .with_config([("dfs.client.failover.max.attempts", "0")])
            .with_user(ADMINISTRATOR)
            .build()?;
        eventually("HDFS to take a file", START, async || {
            server.check_running()?;
            data_node.check_running()?;
            write(&client, "/started", b"yes").await
        })
        .await
        .with_context(|| format!("the name node's log says:\n{}", server.log_tail(20)))?;
        Ok(Self { name_node, client, program, server, _data_node: data_node })
    }

    /// Host and port of the name node.
    #[must_use]
    pub fn name_node(&self) -> &str {
        &self.name_node
    }

    /// Kills the name node and starts it again, which takes it some seconds.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_name_node(&mut self) -> Result<()> {
        self.server.kill();
        self.server = self.program.start()?;
        Ok(())
    }

    /// Makes a directory of [`CONTAINER`], unless it is there.
    ///
    /// # Errors
    /// When the name node refuses.
    pub async fn make(&self, directory: &str) -> Result<()> {
        Ok(self.client.mkdirs(&path(directory), 0o755, true).await?)
    }

    /// Closes a directory of [`CONTAINER`] to all but the administrator.
    ///
    /// # Errors
    /// When the name node refuses.
    pub async fn close(&self, directory: &str) -> Result<()> {
        Ok(self.client.set_permission(&path(directory), 0o700).await?)
    }
}

impl Store for Hdfs {
    async fn put(&self, key: &str, content: &[u8]) -> Result<()> {
        write(&self.client, &path(key), content).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        ensure!(self.client.delete(&path(key), false).await?, "there is no {key}");
        Ok(())
    }
}

fn path(key: &str) -> String {
    format!("/{CONTAINER}/{key}")
}

async fn write(client: &Client, path: &str, content: &[u8]) -> Result<()> {
    let mut writer = client.create(path, WriteOptions::default().overwrite(true)).await?;
    if !content.is_empty() {
        writer.write_bytes(bytes::Bytes::copy_from_slice(content)).await?;
    }
    writer.close().await?;
    // The data node tells the name node a moment later what it has.
    eventually("the blocks to be known", PATIENCE, async || {
        let reader = client.read(path).await?;
        let last = content.len().saturating_sub(1);
        reader.read_range(last, content.len() - last).await.map(drop).map_err(Into::into)
    })
    .await
}

/// One of Hadoop's servers, small and quick to start.
fn server(name: &str, class: &str, name_node: &str, dir: &Path) -> Result<Program> {
    let (java, archives) = binaries::hadoop()?;
    let at = dir.display();
    let settings = [
        format!("fs.defaultFS=hdfs://{name_node}"),
        format!("dfs.namenode.name.dir=file://{at}/names"),
        format!("dfs.datanode.data.dir=file://{at}/blocks"),
        "dfs.namenode.http-address=127.0.0.1:0".to_owned(),
        "dfs.datanode.address=127.0.0.1:0".to_owned(),
        "dfs.datanode.ipc.address=127.0.0.1:0".to_owned(),
        "dfs.datanode.http.address=127.0.0.1:0".to_owned(),
        "dfs.replication=1".to_owned(),
        "dfs.namenode.safemode.extension=0".to_owned(),
        // Or whoever writes a file waits half a second until its last block is known.
        "dfs.namenode.file.close.num-committed-allowed=1".to_owned(),
        // Files of some megabytes have several blocks.
        "dfs.blocksize=1048576".to_owned(),
    ];
    let program = Program::new(name, java, dir)
        .env("HADOOP_USER_NAME", ADMINISTRATOR)
        // Code that runs for half a minute is not worth compiling well.
        .arg("-XX:TieredStopAtLevel=1")
        .arg("-XX:+UseSerialGC")
        .arg("-Xmx256m")
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-cp")
        .arg(archives.join("*"))
        .arg(format!("org.apache.hadoop.hdfs.server.{class}"));
    Ok(settings.into_iter().fold(program, |program, setting| program.arg("-D").arg(setting)))
}
