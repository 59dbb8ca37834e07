//! What two texts begin with alike.

/// Length in bytes of the longest common prefix that ends between characters.
pub(crate) fn shared_prefix(a: &str, b: &str) -> usize {
    let mut shared = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    while !b.is_char_boundary(shared) {
        shared -= 1;
    }
    shared
}
