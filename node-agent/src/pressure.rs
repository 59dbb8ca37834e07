//! How much the node's tasks wait for its disks, as Linux tells it (PSI: `Documentation/accounting/psi.rst`).

use std::path::Path;

/// With more than this, in percent, the disks are others'.
const BUSY: f32 = 20.0;

/// Whether others wait for the node's disks; never where the kernel does not tell.
pub(crate) fn disks_are_busy() -> bool {
    io_some().is_some_and(|waiting| waiting > BUSY)
}

/// Percent of the last ten seconds in which some task waited for a disk; `None` where the
/// kernel does not tell.
fn io_some() -> Option<f32> {
    some(&std::fs::read_to_string(Path::new("/proc/pressure/io")).ok()?)
}

fn some(text: &str) -> Option<f32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_understood() {
        let text = "some avg10=12.50 avg60=0.10 avg300=0.00 total=81\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=2\n";
        assert_eq!(some(text), Some(12.5));
        assert_eq!(some("full avg10=1.00"), None);
        assert_eq!(some("some avg10=soon"), None);
    }
}
