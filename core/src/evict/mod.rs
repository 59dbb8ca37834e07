//! What to give up when there is no room, and what not to take in.
//!
//! Versions of datasets stand in an order ([`Standing`], and [`Heat`] among equals): a
//! [`Plan`] goes through it from the least valuable on, and never touches what is pinned,
//! what a native view shows, or what is of no less value than those that there is to be
//! room for. So datasets displace one another once, when somebody comes who needs more.
//!
//! Among objects of one standing there is no such order: there each is worth what its
//! own [`Readings`] say. Somebody who reads what is not here takes the room of others only
//! when that is worth more ([`displaced`]), and else reads it through.
//!
//! Who uses this looks at [`Room::shortage`] first: as long as there is none, everything
//! is taken in.

mod age;
mod displace;
mod heat;
mod memory;
mod plan;
mod readings;
mod reuse;
mod room;
mod standing;

pub use displace::{Held, SAMPLE, displaced};
pub use heat::Heat;
pub use plan::{Candidate, NotEnough, Plan};
pub use readings::Readings;
pub use room::{Amount, Limits, Room, Shortage, WatermarkError, Watermarks};
pub use standing::{Claim, Need, Standing, least_valuable_first};
