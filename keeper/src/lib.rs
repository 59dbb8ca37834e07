//! Holds the descriptors of FUSE mounts while no node agent lives.
//!
//! A FUSE mount dies with the last descriptor of its connection. The agent gives the
//! keeper a second one, and beside it one of the memory in which it notes what the
//! next agent has to know. While the agent is away readers wait; the next agent asks
//! for all that is kept and goes on. A keeper has no configuration but its socket, asks
//! nobody, mounts nothing and can be as old as it likes.
//!
//! One agent is connected at a time, and a second one waits until the first is gone: two
//! must never answer for one mount. What no agent has served for too long is let go, so
//! that its readers get an error that they can be killed by instead of waiting for ever.

mod client;
mod packet;
mod serve;
mod table;

pub use client::{Client, Kept};
pub use serve::{Keeper, listen};
pub use table::MOST;

/// The user that a keeper runs as on nodes: nobody, to whom the agent gives the socket's directory.
pub const USER: u32 = 65534;

/// Agents are root's.
const ROOT: u32 = 0;

/// The first packet of an agent. Another number will mean another protocol.
const HELLO: &[u8] = b"H1";
/// Asks for all that is kept.
const LIST: u8 = b'L';
/// Gives two descriptors by their name, or says that they are served again; in a list, an entry.
const KEEP: u8 = b'K';
/// Lets go by name.
const FORGET: u8 = b'F';
/// Done; in a list, its end.
const DONE: u8 = b'.';
/// Not done, and why.
const REFUSED: u8 = b'!';
