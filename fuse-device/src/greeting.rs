//! INIT, the first request of a connection.

/// What the kernel said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its capabilities, as in the request's two words of flags.
    pub capabilities: u64,
    /// The minor number of its protocol.
    pub minor: u32,
}

const LENGTH: u32 = 104;
const HEADER_LENGTH: usize = 40;
const OPCODE: u32 = 26;
const MAJOR: u32 = 7;
const READAHEAD: u32 = 128 << 10;
/// Says that there is a second word of flags.
const EXTENDED: u64 = 1 << 30;

/// The request that the kernel would send.
pub(crate) fn request(kernel: Kernel) -> Vec<u8> {
    let mut request = Vec::with_capacity(LENGTH as usize);
    request.extend(LENGTH.to_ne_bytes());
    request.extend(OPCODE.to_ne_bytes());
    // Any number does: the answer is dropped.
    request.extend(2_u64.to_ne_bytes());
    request.resize(HEADER_LENGTH, 0);
    let flags = kernel.capabilities | EXTENDED;
    for word in [MAJOR, kernel.minor, READAHEAD, flags as u32, (flags >> 32) as u32] {
        request.extend(word.to_ne_bytes());
    }
    request.resize(LENGTH as usize, 0);
    request
}
