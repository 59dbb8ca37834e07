//! Who else uses the node's disks and processors, as Linux tells it.

use procfs::{Current, CurrentSI, IoPressure, KernelStats};
use rustix::time::{ClockId, clock_gettime};

/// With more than this, in percent, the disks are others'.
const BUSY: f32 = 20.0;

/// Whether some task waits for the node's disks much of the time (PSI, `Documentation/accounting/psi.rst`);
/// never where the kernel does not tell.
pub(crate) fn disks_are_busy() -> bool {
    IoPressure::current().is_ok_and(|pressure| pressure.some.avg10 > BUSY)
}

/// What the node's processors have done so far, in seconds of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessorTime {
    /// In all, but for what a hypervisor took.
    pub(crate) all: f64,
    /// Of it with nothing to do.
    pub(crate) idle: f64,
    /// Of it for this process.
    pub(crate) own: f64,
}

/// Until now; `None` where the kernel does not tell.
pub(crate) fn processor_time() -> Option<ProcessorTime> {
    let total = KernelStats::current().ok()?.total;
    let idle = total.idle + total.iowait.unwrap_or(0);
    let interrupts = total.irq.unwrap_or(0) + total.softirq.unwrap_or(0);
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    Some(ProcessorTime {
        all: seconds(total.user + total.nice + total.system + interrupts + idle),
        idle: seconds(idle),
        own: own_time(),
    })
}

/// What this process has used so far, in seconds of one processor.
pub(crate) fn own_time() -> f64 {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    own.tv_sec as f64 + own.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_does_is_its_own() {
        let before = processor_time().unwrap();
        let mut sum = 0u64;
        while own_time() < before.own + 0.05 {
            sum = (0..100_000u64).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
        let after = processor_time().unwrap();
        // Ticks are coarse: what was just done may not be counted yet.
        assert!(after.own >= before.own + 0.05);
        assert!(after.all >= before.all && after.idle >= before.idle && after.all >= after.idle, "{sum}");
    }
}
