//! The table that the demo ends with.

use hearth_core::explain::bytes;

use crate::batch::Outcome;

/// Where each pod went, how warm its node was, and what the origin had to send, with and without.
pub(crate) fn render(with: &Outcome, without: &Outcome) -> String {
    let mut rows =
        vec![row(["pod", "reads", "", "with Hearth", "warm", "without", "warm"].map(String::from))];
    rows.push(row([10, 42, 7, 12, 6, 12, 6].map(|n| "─".repeat(n))));
    for (a, b) in with.pods.iter().zip(&without.pods) {
        rows.push(row([
            a.name.clone(),
            a.datasets.clone(),
            bytes(a.requested),
            a.node.clone(),
            format!("{} %", a.percent),
            b.node.clone(),
            format!("{} %", b.percent),
        ]));
    }
    let mut sum = |what: &str, of: &dyn Fn(&Outcome) -> String| {
        rows.push(row([what, "", "", &of(with), "", &of(without), ""].map(String::from)));
    };
    sum("", &|_| String::new());
    sum("bytes from the origin", &|o| bytes(o.origin_bytes));
    sum("requests to the origin", &|o| o.origin_gets.to_string());
    sum("until all data was local", &|o| format!("{:.1} s", o.until_local.as_secs_f32()));
    rows.join("\n")
}

fn row([pod, reads, size, with, with_warm, without, without_warm]: [String; 7]) -> String {
    format!("{pod:10} {reads:42} {size:>7}  {with:12} {with_warm:>6}  {without:12} {without_warm:>6}")
        .trim_end()
        .to_owned()
}
