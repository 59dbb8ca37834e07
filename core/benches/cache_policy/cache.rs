//! What all policies are asked.

/// An object, by its number; those of a second dataset follow those of the first.
pub(crate) type Object = u32;

/// A cache of objects of one size.
pub(crate) trait Cache {
    /// Reads an object; whether it was there.
    fn read(&mut self, object: Object) -> bool;
}
