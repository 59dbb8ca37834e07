//! A Python that has what a test needs, where there is one.

use std::process::Command;

/// One that has PyTorch: the first in the path, or Debian's behind it.
#[must_use]
pub fn with_torch() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let imported = Command::new(python).args(["-c", "import torch"]).output();
        imported.is_ok_and(|output| output.status.success())
    })
}
