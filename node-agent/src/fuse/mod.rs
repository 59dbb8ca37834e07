//! FUSE views: what is not wholly on the node, as a read-only file system that fetches
//! what is read.
//!
//! Names, sizes and times come from the manifest alone (`tree`). A read is answered
//! from the store's verified blocks (`reader`); what is not held is demanded
//! from fetching before all else, and waited for until a deadline. A file that is
//! wholly here is read by the kernel itself (`opens`). `serve` answers the kernel, and
//! `session` mounts and runs. A session outlives the agent: what the next one has to
//! know stands in memory (`ledger`) that a process of its own holds for it (`keeper`).

mod ahead;
mod keeper;
mod ledger;
mod opens;
mod reader;
mod serve;
mod session;
mod tree;

pub(crate) use reader::{Reader, ReaderParts};
pub use session::end_when_a_session_panics;
pub(crate) use session::{Orphan, Sessions};
pub(crate) use tree::Tree;
