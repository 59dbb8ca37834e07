//! Tiers: cache directories of a node, each on a medium, and which of them gets what.
//!
//! A version's files are best together: only files of one file system can be shown by
//! hard links of one tree. So a version goes where all that is still to come has room,
//! and only what fits nowhere is spread.

use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// What a cache directory is on, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Medium {
    /// Memory: tmpfs.
    Mem,
    /// Flash.
    Ssd,
    /// Rotating disks.
    Hdd,
}

impl std::fmt::Display for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mem => "MEM",
            Self::Ssd => "SSD",
            Self::Hdd => "HDD",
        })
    }
}

/// Where a dataset goes that wishes nothing. Memory is for those that ask for it.
const USUAL: [Medium; 2] = [Medium::Ssd, Medium::Hdd];

/// A tier as a version sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// What it is on.
    pub medium: Medium,
    /// Bytes that it takes before something has to make room.
    pub free: u64,
    /// Bytes of the version that it holds.
    pub held: u64,
    /// It works, as far as is known.
    pub works: bool,
}

/// The place of a medium in a wish; `None` when it is not wished for.
fn rank(wish: &[Medium], medium: Medium) -> Option<usize> {
    let wish = if wish.is_empty() { &USUAL } else { wish };
    wish.iter().position(|wished| *wished == medium)
}

/// The tiers that a version may lie in, with the place of each medium in the wish. A node
/// where none of the media works that are wished for uses what it has.
fn allowed(wish: &[Medium], tiers: &[Tier]) -> Vec<(usize, usize)> {
    let by = |wish: &[Medium]| -> Vec<(usize, usize)> {
        let working = tiers.iter().enumerate().filter(|(_, tier)| tier.works);
        working.filter_map(|(index, tier)| Some((index, rank(wish, tier.medium)?))).collect()
    };
    [by(wish), by(&[]), by(&[Medium::Mem])].into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

/// In which order tiers, by index, are asked for room for more of a version: the first that
/// has some free gets it, and when none has, the first that can make some.
///
/// `wish` are the media that its Dataset names, the best first, and `to_come` the bytes of
/// the version that the node does not hold.
pub fn places(wish: &[Medium], to_come: u64, tiers: &[Tier]) -> Vec<usize> {
    let fits = |(index, _): &(usize, usize)| tiers[*index].free >= to_come;
    let (mut whole, mut parts): (Vec<_>, Vec<_>) = allowed(wish, tiers).into_iter().partition(fits);
    let most = |index: usize| (Reverse(tiers[index].held), Reverse(tiers[index].free));
    // All that fits goes to the best medium; what does not stays together as long as it can.
    whole.sort_by_key(|(index, rank)| (*rank, most(*index)));
    parts.sort_by_key(|(index, rank)| (Reverse(tiers[*index].held), *rank, most(*index)));
    whole.into_iter().chain(parts).map(|(index, _)| index).collect()
}

/// A version that may move between tiers.
#[derive(Clone, Debug, PartialEq)]
pub struct Resident {
    /// Media that its Dataset wishes for, the best first.
    pub wish: Vec<Medium>,
    /// How often it was mounted of late.
    pub heat: f64,
    /// It goes after the others when room is needed: pods read it, or it is pinned.
    pub needed: bool,
    /// Bytes that each tier holds of it.
    pub held: Vec<u64>,
}

/// One version's way from one tier to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Index of the version.
    pub version: usize,
    /// Index of the tier that it leaves.
    pub from: usize,
    /// Index of the tier that it goes to.
    pub to: usize,
}

/// Heat below which nothing is moved up: a dataset that was mounted once, two days ago.
const WARM: f64 = 0.25;
/// How many times as hot a version has to be as what it displaces, so that two do not take turns.
const HOTTER: f64 = 2.0;

/// Whether a dataset of that heat is to be moved up.
pub fn is_warm(heat: f64) -> bool {
    heat >= WARM
}

/// What to move next, if anything: the hottest version that a better medium of its wish has
/// room for; or first, out of its way, a colder one that a medium further down its own wish
/// has room for.
pub fn next_move(versions: &[Resident], tiers: &[Tier]) -> Option<Move> {
    let mut hottest: Vec<usize> =
        (0..versions.len()).filter(|version| is_warm(versions[*version].heat)).collect();
    hottest.sort_by(|one, other| versions[*other].heat.total_cmp(&versions[*one].heat));
    for index in hottest {
        let version = &versions[index];
        let media = allowed(&version.wish, tiers);
        for (from, from_rank) in media.iter().copied().filter(|(tier, _)| version.held[*tier] > 0) {
            let mut better: Vec<(usize, usize)> =
                media.iter().copied().filter(|(_, rank)| *rank < from_rank).collect();
            better.sort_by_key(|(tier, rank)| (*rank, Reverse(tiers[*tier].free)));
            for (to, _) in better {
                if tiers[to].free >= version.held[from] {
                    return Some(Move { version: index, from, to });
                }
                if let Some(down) = out_of_the_way(versions, tiers, index, from, to) {
                    return Some(down);
                }
            }
        }
    }
    None
}

/// The coldest version that can leave `to` for a hotter one that is to come `from` elsewhere,
/// if enough can leave.
fn out_of_the_way(versions: &[Resident], tiers: &[Tier], hot: usize, from: usize, to: usize) -> Option<Move> {
    let wanted = versions[hot].held[from].saturating_sub(tiers[to].free);
    let lower = |version: &Resident| {
        let media = allowed(&version.wish, tiers);
        // One that may not be there at all may leave for any that it may be in.
        let here = media.iter().find(|(tier, _)| *tier == to).map_or(0, |(_, rank)| *rank + 1);
        let mut down: Vec<(usize, usize)> =
            media.into_iter().filter(|(tier, rank)| *rank >= here && *tier != to).collect();
        down.sort_by_key(|(_, rank)| *rank);
        down.into_iter().map(|(tier, _)| tier).find(|tier| tiers[*tier].free >= version.held[to])
    };
    let yields = |(index, version): &(usize, &Resident)| {
        *index != hot
            && version.held[to] > 0
            && !version.needed
            && version.heat * HOTTER <= versions[hot].heat
    };
    let mut cold: Vec<(usize, usize)> = versions
        .iter()
        .enumerate()
        .filter(yields)
        .filter_map(|(index, version)| Some((index, lower(version)?)))
        .collect();
    cold.sort_by(|(one, _), (other, _)| versions[*one].heat.total_cmp(&versions[*other].heat));
    let can_leave: u64 = cold.iter().map(|(index, _)| versions[*index].held[to]).sum();
    let (version, down) = *cold.first().filter(|_| can_leave >= wanted)?;
    Some(Move { version, from: to, to: down })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Medium::{Hdd, Mem, Ssd};
    use proptest::prelude::*;

    fn tier(medium: Medium, free: u64, held: u64) -> Tier {
        Tier { medium, free, held, works: true }
    }

    #[test]
    fn what_fits_goes_to_the_best_medium_that_is_wished_for() {
        let tiers = [tier(Mem, 50, 0), tier(Ssd, 100, 0), tier(Ssd, 200, 0), tier(Hdd, 1_000, 0)];
        assert_eq!(places(&[], 80, &tiers), [2, 1, 3], "the one with most room first");
        assert_eq!(places(&[Mem, Ssd], 40, &tiers), [0, 2, 1]);
        assert_eq!(places(&[Mem, Ssd], 80, &tiers), [2, 1, 0], "memory would have to share it");
        assert_eq!(places(&[Hdd], 80, &tiers), [3]);
        assert_eq!(places(&[], 500, &tiers)[0], 3, "only there it is together");
    }

    #[test]
    fn what_fits_nowhere_stays_together_as_long_as_it_can() {
        let tiers = [tier(Ssd, 100, 0), tier(Ssd, 60, 40), tier(Hdd, 90, 0)];
        assert_eq!(places(&[], 500, &tiers), [1, 0, 2]);
        let tiers = [tier(Ssd, 100, 10), tier(Ssd, 300, 0)];
        assert_eq!(places(&[], 90, &tiers), [0, 1], "where some of it is, though the other has more room");
    }

    #[test]
    fn nodes_without_what_is_wished_for_use_what_they_have() {
        assert_eq!(places(&[Ssd], 10, &[tier(Hdd, 100, 0)]), [0]);
        assert_eq!(places(&[Mem], 10, &[tier(Hdd, 100, 0), tier(Ssd, 100, 0)]), [1, 0]);
        assert_eq!(places(&[], 10, &[tier(Mem, 100, 0)]), [0]);
        let broken = Tier { works: false, ..tier(Ssd, 100, 50) };
        assert_eq!(places(&[], 10, &[broken, tier(Hdd, 100, 0)]), [1]);
        assert_eq!(places(&[Ssd], 10, &[broken, tier(Hdd, 100, 0)]), [1], "as if it were not there");
        assert_eq!(places(&[], 10, &[broken]), Vec::<usize>::new());
    }

    fn resident(wish: &[Medium], heat: f64, held: &[u64]) -> Resident {
        Resident { wish: wish.to_vec(), heat, needed: false, held: held.to_vec() }
    }

    #[test]
    fn the_hottest_moves_up_where_there_is_room() {
        let tiers = [tier(Mem, 100, 0), tier(Ssd, 1_000, 0)];
        let up = |version| Some(Move { version, from: 1, to: 0 });
        let versions = [resident(&[Mem, Ssd], 1.0, &[0, 60]), resident(&[Mem, Ssd], 3.0, &[0, 80])];
        assert_eq!(next_move(&versions, &tiers), up(1));
        let versions = [resident(&[Mem, Ssd], 1.0, &[0, 60]), resident(&[], 3.0, &[0, 80])];
        assert_eq!(next_move(&versions, &tiers), up(0), "the other does not wish for memory");
        let versions = [resident(&[Mem, Ssd], 0.1, &[0, 60])];
        assert_eq!(next_move(&versions, &tiers), None, "it was not mounted of late");
        assert_eq!(
            next_move(&[resident(&[Ssd, Mem], 9.0, &[0, 60])], &tiers),
            None,
            "it is where it wishes to be"
        );
    }

    #[test]
    fn a_colder_one_moves_out_of_the_way() {
        let tiers = [tier(Mem, 10, 0), tier(Ssd, 1_000, 0)];
        let hot = resident(&[Mem, Ssd], 4.0, &[0, 80]);
        let cold = resident(&[Mem, Ssd], 1.0, &[90, 0]);
        let down = Move { version: 1, from: 0, to: 1 };
        assert_eq!(next_move(&[hot.clone(), cold.clone()], &tiers), Some(down));
        let warm = Resident { heat: 3.0, ..cold.clone() };
        assert_eq!(next_move(&[hot.clone(), warm], &tiers), None, "they would take turns");
        let needed = Resident { needed: true, ..cold.clone() };
        assert_eq!(next_move(&[hot.clone(), needed], &tiers), None);
        let small = Resident { held: vec![50, 0], ..cold.clone() };
        assert_eq!(next_move(&[hot.clone(), small], &tiers), None, "its leaving is not enough");
        let only = Resident { wish: vec![Mem], ..cold };
        assert_eq!(next_move(&[hot, only], &tiers), None, "it wishes to be nowhere else");
    }

    proptest! {
        /// Whatever the order of moves, they come to an end: nothing moves in circles.
        #[test]
        fn moves_end(
            free in prop::collection::vec(0u64..200, 3),
            versions in prop::collection::vec((0.0f64..8.0, prop::collection::vec(0u64..60, 3), 0usize..4, any::<bool>()), 1..6),
        ) {
            let wishes: [&[Medium]; 4] = [&[], &[Mem, Ssd], &[Mem, Ssd, Hdd], &[Ssd, Mem]];
            let media = [Mem, Ssd, Hdd];
            let mut tiers: Vec<Tier> = media.iter().zip(&free).map(|(medium, free)| tier(*medium, *free, 0)).collect();
            let mut versions: Vec<Resident> = versions
                .into_iter()
                .map(|(heat, held, wish, needed)| Resident { needed, ..resident(wishes[wish], heat, &held) })
                .collect();
            let all = |versions: &[Resident]| versions.iter().flat_map(|version| &version.held).sum::<u64>();
            let before = all(&versions);
            for _ in 0..100 {
                let Some(Move { version, from, to }) = next_move(&versions, &tiers) else {
                    prop_assert_eq!(all(&versions), before);
                    return Ok(());
                };
                let bytes = versions[version].held[from];
                prop_assert!(bytes > 0 && bytes <= tiers[to].free, "it has room where it goes");
                versions[version].held[from] = 0;
                versions[version].held[to] += bytes;
                tiers[from].free += bytes;
                tiers[to].free -= bytes;
            }
            prop_assert!(false, "they go round in circles");
        }
    }
}
