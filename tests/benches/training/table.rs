//! The figures: medians of the rounds.

use crate::training_loop::Epoch;
use hearth_tests::measure::median;

/// A variant's name, and its epochs turn by turn.
pub(crate) type Row = (String, Vec<Vec<Epoch>>);

/// The first two rows are plain files, beside whose mean all warm epochs are set.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "{:26} {:>13} {:>8} {:>13} {:>8} {:>16}",
        "", "first epoch", "waiting", "warm epochs", "waiting", "× ext4, warm"
    );
    let warm = |(_, turns): &Row| median(seconds(turns, Stage::Warm));
    let ext4 = rows.iter().take(2).map(warm).sum::<f64>() / 2.0;
    for row in rows {
        let (name, turns) = row;
        println!(
            "{name:26} {:>11.2} s {:>6.0} % {:>11.2} s {:>6.0} % {:>16.3}",
            median(seconds(turns, Stage::First)),
            median(waiting(turns, Stage::First)) * 100.0,
            warm(row),
            median(waiting(turns, Stage::Warm)) * 100.0,
            warm(row) / ext4,
        );
    }
}

/// Which epochs of each turn.
#[derive(Clone, Copy)]
enum Stage {
    First,
    Warm,
}

fn epochs(turns: &[Vec<Epoch>], stage: Stage) -> impl Iterator<Item = &Epoch> {
    turns.iter().flat_map(move |epochs| match stage {
        Stage::First => &epochs[..epochs.len().min(1)],
        Stage::Warm => &epochs[epochs.len().min(1)..],
    })
}

fn seconds(turns: &[Vec<Epoch>], stage: Stage) -> impl Iterator<Item = f64> {
    epochs(turns, stage).map(|epoch| epoch.seconds)
}

/// Shares of the epochs in which there was no step.
fn waiting(turns: &[Vec<Epoch>], stage: Stage) -> impl Iterator<Item = f64> {
    epochs(turns, stage).map(|epoch| epoch.waiting / epoch.seconds)
}
