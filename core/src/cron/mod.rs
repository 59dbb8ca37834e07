//! Runs that recur by a schedule: when one is due, and what becomes of the ones before it.

mod plan;
mod schedule;

pub use plan::{Facts, Plan, Policy, Run, RunState, Untimely, name_of_run, plan};
pub use schedule::{InvalidSchedule, Schedule};
