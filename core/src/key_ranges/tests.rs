use super::*;
use proptest::prelude::*;

const PAGE: usize = 10;

/// What a listing cost: requests, and steps in which all requests of one step go side by side.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    requests: usize,
    steps: usize,
}

/// Lists from a store of these keys, each page of which takes one step.
fn list(keys: &BTreeSet<String>, width: usize, knows_after: bool) -> (Vec<String>, Cost) {
    let mut ranges = KeyRanges::new(width);
    let mut listed: Vec<String> = Vec::new();
    let mut positions: Vec<String> = Vec::new();
    let mut cost = Cost { requests: 0, steps: 0 };
    while !ranges.is_done() {
        let mut step = Vec::new();
        while let Some(page) = ranges.next_page() {
            step.push(page);
        }
        assert!(!step.is_empty() && step.len() <= width);
        cost.requests += step.len();
        cost.steps += 1;
        for NextPage { range, after } in step {
            positions.resize(positions.len().max(range + 1), String::new());
            let from = match after.filter(|_| knows_after) {
                Some(after) => after,
                None => positions[range].clone(),
            };
            let rest = || keys.iter().filter(|key| **key > from || from.is_empty());
            let page: Vec<&str> = rest().take(PAGE).map(String::as_str).collect();
            let own = ranges.page(range, &page, rest().count() > PAGE).unwrap();
            listed.extend(page[own.clone()].iter().map(|key| (*key).to_owned()));
            positions[range] = match page.last().filter(|_| own.end == page.len()) {
                Some(last) => (*last).to_owned(),
                None => from,
            };
        }
    }
    listed.sort();
    (listed, cost)
}

fn check(name: &str, keys: impl Iterator<Item = String>) {
    const WIDTH: usize = 10;
    let keys: BTreeSet<String> = keys.collect();
    let pages = keys.len().div_ceil(PAGE);
    let (listed, cost) = list(&keys, WIDTH, true);
    assert!(listed.iter().eq(&keys), "{name}");
    let ideal = pages.div_ceil(WIDTH);
    // For the search, and what it takes to begin and to end.
    assert!(cost.requests * 100 <= pages * 112, "{name}: {cost:?} for {pages} pages");
    assert!(cost.steps * 100 <= ideal * 130, "{name}: {cost:?}, ideally {ideal} steps");
}

#[test]
fn listings_of_many_shapes_take_little_more_than_their_pages() {
    check("numbered", (0..10_000).map(|n| format!("img_{n:07}.jpg")));
    check("numbered without padding", (0..10_000).map(|n| format!("{n}")));
    check("classes", (0..10_000).map(|n| format!("train/n{:08}/{:05}.jpg", n / 13 * 7919 % 100_000_000, n)));
    check("shards", (0..10_000).map(|n| format!("data/part-{:04}/shard-{n:06}-of-010000.tar", n / 100)));
    check("hashes", (0..10_000_u32).map(|n| blake3::hash(&n.to_le_bytes()).to_hex().to_string()));
    check(
        "hashes below folders",
        (0..10_000_u32).map(|n| {
            let hash = blake3::hash(&n.to_le_bytes()).to_hex();
            format!("objects/{}/{}", &hash[..2], &hash[2..])
        }),
    );
    check(
        "dates",
        (0..10_000).map(|n| format!("logs/2026/{:02}/{:02}/{:04}.json", n % 12 + 1, n % 28 + 1, n)),
    );
    let words = ["airplane", "bird", "car", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    check("words", (0..10_000).map(|n| format!("{}/{n:05}.png", words[n % words.len()])));
    check("a page each", (0..10_000).map(|n| format!("n{:08}/n{:08}_{n:08}.jpg", n / PAGE, n / PAGE)));
    check(
        "one large and some small",
        (0..10_000).map(|n| match n {
            0..50 => format!("a{n}/readme"),
            _ => format!("train/images/{n:06}"),
        }),
    );
}

#[test]
fn a_short_listing_is_not_split() {
    let keys = (0..SHORT * PAGE).map(|n| format!("{n:03}")).collect();
    assert_eq!(list(&keys, 16, true).1, Cost { requests: SHORT, steps: SHORT });
    assert_eq!(list(&BTreeSet::new(), 16, true).1, Cost { requests: 1, steps: 1 });
}

#[test]
fn what_is_not_in_order_is_listed_page_by_page_or_said() {
    let mut ranges = KeyRanges::new(4);
    for keys in [["b", "d"], ["a", "c"], ["f", "e"], ["x", "y"]] {
        assert_eq!(ranges.next_page().map(|page| page.range), Some(0));
        assert_eq!(ranges.next_page(), None);
        assert_eq!(ranges.page(0, &keys, keys[0] != "x"), Ok(0..2));
    }
    assert!(ranges.is_done());

    let mut ranges = KeyRanges::new(4);
    for keys in [["a", "b"], ["c", "d"], ["e", "f"]] {
        ranges.next_page().unwrap();
        ranges.page(0, &keys, true).unwrap();
    }
    while let Some(page) = ranges.next_page() {
        let behind = page.after.map_or_else(|| "g".to_owned(), |after| format!("{after}x"));
        if page.range > 0 {
            assert_eq!(ranges.page(page.range, &["zz", &behind], true), Err(OutOfOrder));
            return;
        }
    }
    panic!("it was not split");
}

#[test]
fn a_part_that_begins_before_its_keys_is_out_of_order_once_others_have_some() {
    for others_have_some in [false, true] {
        let mut ranges = KeyRanges::new(4);
        for keys in [["n00", "n01"], ["n02", "n03"], ["n04", "n05"]] {
            ranges.next_page().unwrap();
            ranges.page(0, &keys, true).unwrap();
        }
        ranges.next_page().unwrap();
        let [one, other] = [(); 2].map(|()| ranges.next_page().unwrap());
        if others_have_some {
            let key = format!("{}x", one.after.unwrap());
            assert_eq!(ranges.page(one.range, &[&key], true), Ok(0..1));
            assert_eq!(ranges.page(other.range, &["n00"], true), Err(OutOfOrder));
        } else {
            assert_eq!(ranges.page(one.range, &["n00"], true), Ok(0..0));
            let late = format!("{}x", other.after.unwrap());
            assert_eq!(ranges.page(other.range, &[&late], true), Ok(0..0), "the first range lists it");
            assert_eq!(ranges.page(0, &["n06"], false), Ok(0..1));
            assert!(ranges.is_done(), "{ranges:?}");
        }
    }
}

proptest! {
    #[test]
    fn every_key_is_listed_once(
        keys in prop::collection::btree_set("[ab/é~😀]{1,5}", 0..300),
        width in 1_usize..20,
        knows_after: bool,
    ) {
        let (listed, _) = list(&keys, width, knows_after);
        prop_assert!(listed.iter().eq(&keys));
    }
}
