//! Answers the kernel's calls. What may wait for an origin is answered from a task, so that the
//! threads that take calls never do; they wait for a disk at most.

use super::ledger::Mode;
use super::opens::Opens;
use super::reader::Reader;
use super::tree::{Node, Tree};
use crate::views::{DIRECTORY_MODE, FILE_MODE};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, Request,
};
use hearth_fuse_device::{Kernel, SENT_AGAIN, open_backing, opened_passthrough};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Nothing changes under a version.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const GENERATION: Generation = Generation(0);
/// What programs are told to read at a time.
const READ_SIZE: u32 = 128 << 10;
const SECTOR: u64 = 512;
/// What free space is counted in.
const PAGE: u32 = 4096;
const LONGEST_NAME: u32 = 255;

/// One view.
pub(super) struct View {
    tree: Tree,
    reader: Arc<Reader>,
    opens: Arc<Opens>,
    handle: Handle,
    shutdown: CancellationToken,
    /// Whether the kernel can read whole files itself.
    passthrough: bool,
}

impl View {
    pub(super) fn new(
        tree: Tree,
        reader: Reader,
        opens: Arc<Opens>,
        handle: Handle,
        shutdown: CancellationToken,
    ) -> Self {
        Self { tree, reader: Arc::new(reader), opens, handle, shutdown, passthrough: false }
    }

    /// Whether a request must not be tried again: it may be what ended the processes before.
    fn refuses(&self, request: &Request) -> bool {
        let number = request.unique().0;
        if number & SENT_AGAIN == 0 {
            return false;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_suspect = self.opens.ledger().is_suspect(number, now).unwrap_or(false);
        if is_suspect {
            self.reader.refused(number);
        }
        is_suspect
    }

    fn attributes(&self, node: Node) -> Option<FileAttr> {
        let (kind, mode, size, modified) = match node {
            Node::Directory(_) => (FileType::Directory, DIRECTORY_MODE, 0, self.tree.newest()),
            Node::File(index) => {
                let file = self.tree.file(index)?;
                (FileType::RegularFile, FILE_MODE, file.size, file.modified)
            }
        };
        let time = time(modified);
        Some(FileAttr {
            ino: INodeNo(node.inode()),
            size,
            blocks: size.div_ceil(SECTOR),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: mode as u16,
            // Of a directory, 1 says that nobody counted.
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: READ_SIZE,
            flags: 0,
        })
    }

    fn directory(&self, inode: INodeNo) -> Option<u32> {
        match self.tree.node(inode.0)? {
            Node::Directory(place) => Some(place),
            Node::File(_) => None,
        }
    }

    /// Calls `add` with inode, the offset behind, kind and name until it says that it is full.
    fn list(&self, directory: u32, offset: u64, mut add: impl FnMut(Node, u64, &str) -> bool) {
        let dots = [(".", Node::Directory(directory)), ("..", self.tree.parent(directory))];
        for ((name, node), next) in dots.into_iter().zip(1..) {
            if next > offset && add(node, next, name) {
                return;
            }
        }
        for entry in self.tree.list(directory, offset) {
            if add(entry.node, entry.next, entry.name) {
                return;
            }
        }
    }

    /// The file that the kernel can read itself in place of one that nobody has open.
    fn backing(&self, index: u32) -> Option<fs::File> {
        if !self.passthrough {
            return None;
        }
        let path = self.reader.store().whole_file(self.reader.hash(), index as usize).ok().flatten()?;
        fs::File::open(path).inspect_err(Self::served_though_whole).ok()
    }

    /// How a file that nobody has open is to be read.
    fn mode(&self, backing: Option<fs::File>) -> Mode {
        let Some(file) = backing else { return Mode::Served };
        open_backing(self.opens.device(), file)
            .inspect_err(Self::served_though_whole)
            .map_or(Mode::Served, Mode::Passthrough)
    }

    /// It went meanwhile, or the kernel does not like where it lies.
    fn served_though_whole(error: &io::Error) {
        tracing::debug!("a whole file is served without passthrough: {error}");
    }
}

/// A read that waits. The library answers EIO for what is dropped; but a task that is
/// dropped because the process ends has not failed, and is left to the next process.
struct Pending(Option<ReplyData>);

impl Pending {
    fn answer(&mut self, answer: impl FnOnce(ReplyData)) {
        if let Some(reply) = self.0.take() {
            answer(reply);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take()
            && !std::thread::panicking()
        {
            std::mem::forget(reply);
        }
    }
}

/// Nanoseconds since 1970 as the standard library has them.
fn time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    match nanos < 0 {
        true => SystemTime::UNIX_EPOCH - distance,
        false => SystemTime::UNIX_EPOCH + distance,
    }
}

fn kind(node: Node) -> FileType {
    match node {
        Node::Directory(_) => FileType::Directory,
        Node::File(_) => FileType::RegularFile,
    }
}

impl Filesystem for View {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Not READDIRPLUS_AUTO: training lists a directory and then opens nearly every file, and what a listing brings
        // along for a microsecond costs a request of its own afterwards.
        let good = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_DIO
            // Containers with user namespaces of their own mount a volume with its owners mapped.
            | InitFlags::FUSE_ALLOW_IDMAP;
        let _ = config.add_capabilities(good & config.capabilities());
        // 2: the store may lie on an overlay itself.
        self.passthrough = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(2).is_ok();
        let kernel = Kernel { capabilities: config.capabilities().bits(), minor: config.kernel_abi().1 };
        self.opens.ledger().greet(kernel)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.refuses(request) {
            return reply.error(Errno::EIO);
        }
        let found = self
            .directory(parent)
            .zip(name.to_str())
            .and_then(|(parent, name)| self.tree.lookup(parent, name))
            .and_then(|node| self.attributes(node));
        match found {
            Some(attributes) => reply.entry(&FOREVER, &attributes, GENERATION),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if self.refuses(request) {
            return reply.error(Errno::EIO);
        }
        match self.tree.node(inode.0).and_then(|node| self.attributes(node)) {
            Some(attributes) => reply.attr(&FOREVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.refuses(request) {
            return reply.error(Errno::EIO);
        }
        let Some(Node::File(index)) = self.tree.node(inode.0) else { return reply.error(Errno::ENOENT) };
        self.reader.opened(index);
        match self.opens.open(request.unique().0, inode.0, || self.backing(index), |found| self.mode(found)) {
            Ok((handle, Mode::Served)) => {
                self.reader.opened_served(index);
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
            }
            Ok((handle, Mode::Passthrough(id))) => {
                opened_passthrough(reply, FileHandle(handle), FopenFlags::FOPEN_NOFLUSH, id);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.refuses(request) {
            return reply.error(Errno::EIO);
        }
        let Some(Node::File(index)) = self.tree.node(inode.0) else { return reply.error(Errno::ENOENT) };
        if let Some(bytes) = self.reader.read_kept(index, offset, size) {
            return reply.data(&bytes);
        }
        let (reader, shutdown) = (self.reader.clone(), self.shutdown.clone());
        let mut pending = Pending(Some(reply));
        self.handle.spawn(async move {
            match reader.read(index, offset, size).await {
                Ok(bytes) => pending.answer(|reply| reply.data(&bytes)),
                // Perhaps only because this process ends: the next one will know.
                Err(_) if shutdown.is_cancelled() => {}
                Err(why) => {
                    reader.failed(index, &why);
                    pending.answer(|reply| reply.error(Errno::EIO));
                }
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Err(error) = self.opens.release(handle.0, inode.0) {
            tracing::warn!("a file's end cannot be noted: {error}");
        }
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
    }

    fn readdir(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if self.refuses(request) {
            return reply.error(Errno::EIO);
        }
        let Some(directory) = self.directory(inode) else { return reply.error(Errno::ENOTDIR) };
        self.list(directory, offset, |node, next, name| {
            reply.add(INodeNo(node.inode()), next, kind(node), name)
        });
        reply.ok();
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        if self.refuses(request) {
            return reply.error(Errno::EIO);
        }
        let Some(directory) = self.directory(inode) else { return reply.error(Errno::ENOTDIR) };
        self.list(directory, offset, |node, next, name| {
            self.attributes(node).is_some_and(|attributes| {
                reply.add(INodeNo(node.inode()), next, name, &FOREVER, &attributes, GENERATION)
            })
        });
        reply.ok();
    }

    /// Programs ask whether a file is a terminal as they open it: Python's open() does.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (files, bytes) = self.tree.size();
        reply.statfs(bytes.div_ceil(PAGE.into()), 0, 0, files, 0, PAGE, LONGEST_NAME, PAGE);
    }
}
