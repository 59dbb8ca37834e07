//! FUSE views: what is not wholly on the node, as a read-only file system that fetches
//! what is read.
//!
//! Names, sizes and times come from the manifest alone (`tree`). A read is answered
//! from the store's verified blocks (`reader`, `blocks`); what is not held is demanded
//! from fetching before all else, and waited for until a deadline. A file that is
//! wholly here is read by the kernel itself (`opens`). `serve` answers the kernel, and
//! `session` mounts and runs.

mod blocks;
mod opens;
mod reader;
mod serve;
mod session;
mod tree;

pub(crate) use blocks::Blocks;
pub(crate) use reader::{Reader, ReaderParts};
pub(crate) use session::{Sessions, serve};
pub(crate) use tree::Tree;
