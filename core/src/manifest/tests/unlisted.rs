//! Files that are shown and never kept.

use super::*;

fn with_unlisted(files: &[(&str, u64, bool)]) -> Manifest {
    let mut builder = builder();
    for (path, size, unlisted) in files {
        builder.push(ListedObject { unlisted: *unlisted, ..object(path, *size, "1") });
    }
    builder.finish().unwrap().0
}

#[test]
fn their_blocks_are_numbered_behind_all_others() {
    let m = with_unlisted(&[
        ("a", BLOCK_SIZE + 1, true),
        ("b", 2 * BLOCK_SIZE, false),
        ("c", 0, true),
        ("d", 7, true),
        ("e", 0, false),
        ("f", 5, false),
        ("g", 3, true),
    ]);
    let blocks: Vec<_> = m.files().map(|file| file.blocks()).collect();
    assert_eq!(blocks, [3..5, 0..2, 5..5, 5..6, 2..2, 2..3, 6..7]);
    assert_eq!((m.blocks(), m.unlisted_blocks(), m.bytes()), (3, 3..7, 2 * BLOCK_SIZE + 5));
    assert_eq!((m.file_count(), m.listed_count(), m.unlisted_count()), (7, 3, 4));
    let owners: Vec<_> = (0..8).filter_map(|number| m.file_of_block(number)).map(|file| file.path).collect();
    assert_eq!(owners, ["b", "b", "f", "a", "a", "d", "g"]);
    assert_eq!(m.unlisted_blocks_of(&Selection::new(["a", "b", "g"]).unwrap()), (3..5).chain([6]).collect());
    let (all, part) = (Selected::all(&m), Selected::find(&m, &Selection::new(["[a-d]"]).unwrap()));
    assert_eq!((all.bytes, all.files, all.unlisted), (m.bytes(), 3, 4));
    assert_eq!((part.bytes, part.files, part.unlisted), (2 * BLOCK_SIZE, 1, 3));
    assert_eq!((all.blocks(&m), part.blocks(&m)), ((0..3).collect(), (0..2).collect()));
}

#[test]
fn what_is_shown_is_never_in_the_way_of_what_is_listed() {
    let paths = |files: &[(&str, u64, bool)]| {
        let mut builder = builder();
        for (path, size, unlisted) in files {
            builder.push(ListedObject { unlisted: *unlisted, ..object(path, *size, "1") });
        }
        let (manifest, skipped) = builder.finish().unwrap();
        (manifest.files().map(|file| file.path.to_owned()).collect::<Vec<_>>().join(" "), skipped.count)
    };
    assert_eq!(paths(&[("x", 1, false), ("x/y", 1, true), ("x/z", 1, true)]), ("x".into(), 2));
    assert_eq!(paths(&[("x", 1, true), ("x/y", 1, false), ("x/z", 1, true)]), ("x/y x/z".into(), 1));
    assert_eq!(paths(&[("x", 1, true), ("x/y", 1, true)]), ("x/y".into(), 1));
}

#[test]
fn what_comes_to_be_listed_or_unlisted_is_not_inherited() {
    let old = with_unlisted(&[("a", 5, false), ("b", 5, false), ("c", 5, true), ("d", 5, false)]);
    let new = with_unlisted(&[("a", 5, true), ("b", 5, false), ("c", 5, false), ("d", 5, false)]);
    let held = RoaringBitmap::from_iter([0, 1, 2]);
    let inherited = Unchanged::between(&old, &new).inherited(&held);
    let paths: Vec<_> = inherited.iter().map(|number| new.file_of_block(number).unwrap().path).collect();
    assert_eq!(paths, ["b", "d"]);
}

/// A changed encoding changes the names of all manifests that have such files.
#[test]
fn their_encoding_is_pinned() {
    let m = with_unlisted(&[("a/b", 7, true), ("a/c", 5, false)]);
    let bytes = m.encode();
    let hex: String = bytes[8..].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "0301086e732f63726564730f73333a2f2f6275636b65742f736574047365742f00020003612f62078080d0e2c6bfce972f0000013101\
         020163058080d0e2c6bfce972f0000013100"
    );
    assert_eq!(Manifest::decode(&bytes).unwrap(), m);
}

#[test]
fn without_any_the_encoding_is_as_it_ever_was() {
    let m = with_unlisted(&[("a", 7, false)]);
    assert_eq!(m.encode()[8], 1);
    let mut bytes = with_unlisted(&[("a", 7, true)]).encode();
    *bytes.last_mut().unwrap() = 0;
    let error = Manifest::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("no file is unlisted"), "{error}");
    *bytes.last_mut().unwrap() = 2;
    assert!(Manifest::decode(&bytes).is_err());
    bytes[8] = FORMAT_VERSION + 1;
    assert_eq!(Manifest::decode(&bytes), Err(DecodeError::UnknownFormat(FORMAT_VERSION + 1)));
}

#[test]
fn they_cost_no_memory_where_there_are_none() {
    assert_eq!(size_of::<Row>(), 16 + 2 * size_of::<u64>() + size_of::<Validator>());
}

/// Which paths are unlisted: a path is as often as it is listed.
fn is_unlisted(path: &str, mask: u8) -> bool {
    path.bytes().fold(0u8, u8::wrapping_add) & mask != 0
}

fn pushed_with(listing: &[(String, u64, u8)], mask: u8) -> ManifestBuilder {
    let mut builder = builder();
    for (path, size, tag) in listing {
        let unlisted = is_unlisted(path, mask);
        builder.push(ListedObject { unlisted, ..object(path, *size, &tag.to_string()) });
    }
    builder
}

fn of_listing_with(listing: &[(String, u64, u8)], mask: u8) -> (Manifest, Skipped) {
    pushed_with(listing, mask).finish().unwrap()
}

proptest! {
    #[test]
    fn what_is_listed_is_the_same_whether_the_rest_is_shown_or_hidden(listing in listing(), mask in 0u8..4) {
        let shown = of_listing_with(&listing, mask).0;
        let listed: Vec<_> = listing.iter().filter(|(path, ..)| !is_unlisted(path, mask)).cloned().collect();
        let hidden = of_listing(&listed).0;
        let without_index = |file: File<'_>| (file.path.to_owned(), file.size, file.blocks(), file.validator.clone());
        let of_shown: Vec<_> = shown.files().filter(|file| !file.unlisted).map(without_index).collect();
        prop_assert_eq!(&of_shown, &hidden.files().map(without_index).collect::<Vec<_>>());
        prop_assert_eq!((shown.blocks(), shown.bytes()), (hidden.blocks(), hidden.bytes()));
        prop_assert_eq!(shown.listed_count(), hidden.file_count());
        for selection in [Selection::all(), Selection::new(["a*", "b/**"]).unwrap()] {
            let (of_shown, of_hidden) = (Selected::find(&shown, &selection), Selected::find(&hidden, &selection));
            prop_assert_eq!((of_shown.bytes, of_shown.files), (of_hidden.bytes, of_hidden.files));
            prop_assert_eq!(of_shown.blocks(&shown), of_hidden.blocks(&hidden));
        }
        let numbers: RoaringBitmap = (0..shown.unlisted_blocks().end + 5).collect();
        prop_assert_eq!(shown.bytes_of(&numbers), hidden.bytes());
    }

    #[test]
    fn every_block_has_one_number_and_is_found_by_it(listing in listing(), mask in 0u8..4, globs in "[ab*]{1,2}") {
        let (m, _) = of_listing_with(&listing, mask);
        let mut seen = RoaringBitmap::new();
        for file in m.files() {
            for number in file.blocks() {
                prop_assert!(seen.insert(number));
                prop_assert_eq!(m.file_of_block(number), Some(file));
                prop_assert_eq!(m.unlisted_blocks().contains(&number), file.unlisted);
            }
            prop_assert_eq!(m.find(file.path), Some(file));
        }
        prop_assert_eq!(seen.len(), u64::from(m.unlisted_blocks().end));
        prop_assert!(m.file_of_block(m.unlisted_blocks().end).is_none());
        let with_blocks = m.files().filter(|file| file.size > 0).count();
        prop_assert_eq!(m.files_with(&seen).count(), with_blocks);
        if let Ok(selection) = Selection::new([globs]) {
            let selected: RoaringBitmap = m
                .files()
                .filter(|file| file.unlisted && selection.matches(file.path))
                .flat_map(|file| file.blocks())
                .collect();
            prop_assert_eq!(m.unlisted_blocks_of(&selection), selected);
        }
    }

    #[test]
    fn their_encodings_decode_to_the_same(
        listing in listing(),
        mask in 0u8..4,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let (m, _) = of_listing_with(&listing, mask);
        let mut bytes = m.encode();
        prop_assert_eq!(bytes[8] == 3, m.unlisted_count() > 0);
        prop_assert_eq!(Manifest::decode(&bytes).unwrap(), m);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(m) = Manifest::decode(&bytes) {
            prop_assert_eq!(Manifest::decode(&m.encode()).unwrap(), m);
        }
    }
}
