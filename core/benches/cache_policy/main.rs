//! How many requests find their object on the node: our decisions beside LRU, LFU and
//! S3-FIFO, and beside Belady's, who knows the future.
//!
//! `cargo bench -p hearth-core --bench cache_policy`
//!
//! Objects have one size, and what is drawn comes from seeds: every run prints the same.

mod belady;
mod cache;
mod lfu;
mod lru;
mod ours;
mod requests;
mod s3_fifo;

use cache::Cache;
use lfu::Lfu;
use lru::Lru;
use ours::Ours;
use requests::Requests;
use s3_fifo::S3Fifo;
use std::time::Instant;

fn main() {
    println!("percent of requests that find their object; and ours less the best of LRU to S3-FIFO");
    let names = ["LRU", "LFU", "LFU, all", "S3-FIFO", "ours", "Belady", "less"];
    println!("{:62}{}", "", names.map(|name| format!("{name:>9}")).concat());
    let (mut reads, mut seconds) = (0, 0.0);
    for row in requests::all() {
        let peers = [
            hit_rate(&row, &mut Lru::new(row.space)),
            hit_rate(&row, &mut Lfu::new(row.space, false)),
            hit_rate(&row, &mut Lfu::new(row.space, true)),
            hit_rate(&row, &mut S3Fifo::new(row.space)),
        ];
        let began = Instant::now();
        let ours = hit_rate(&row, &mut Ours::new(row.space, row.second, row.end));
        seconds += began.elapsed().as_secs_f64();
        reads += row.objects.len();
        let belady = row.percent(belady::hits(&row.objects, row.uncounted, row.space));
        let best = peers.iter().copied().fold(0.0, f64::max);
        let cells = peers.into_iter().chain([ours, belady]).map(|rate| format!("{rate:>9.1}"));
        println!("{:62}{}{:>+9.1}", row.name, cells.collect::<String>(), ours - best);
    }
    println!("ours took {:.0} ns a request", seconds * 1e9 / reads as f64);
}

fn hit_rate(row: &Requests, cache: &mut dyn Cache) -> f64 {
    let mut hits = 0;
    for (at, object) in row.objects.iter().enumerate() {
        let hit = cache.read(*object);
        hits += usize::from(hit && at >= row.uncounted);
    }
    row.percent(hits)
}
