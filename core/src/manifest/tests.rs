use super::*;
use crate::block::BLOCK_SIZE;
use proptest::prelude::*;

mod unlisted;

fn builder() -> ManifestBuilder {
    let origin = ManifestOrigin {
        domain: AccessDomain::new("ns", Some("creds")),
        uri: "s3://bucket/set".into(),
        key_prefix: "set/".into(),
        mount: String::new(),
    };
    ManifestBuilder::new(vec![origin])
}

fn object(path: &str, size: u64, tag: &str) -> ListedObject {
    ListedObject {
        origin: 0,
        path: path.into(),
        size,
        modified: 1_700_000_000_000_000_000,
        validator: Validator::etag(tag),
        unlisted: false,
    }
}

fn manifest(files: &[(&str, u64, &str)]) -> Manifest {
    let mut builder = builder();
    for (path, size, tag) in files {
        builder.push(object(path, *size, tag));
    }
    let (manifest, skipped) = builder.finish().unwrap();
    assert_eq!(skipped, Skipped::default());
    manifest
}

#[test]
fn empty_files_and_files_of_exactly_one_block() {
    let m = manifest(&[
        ("a", 0, "1"),
        ("b", BLOCK_SIZE, "2"),
        ("c", 0, "3"),
        ("d", BLOCK_SIZE + 1, "4"),
        ("e", 0, "5"),
    ]);
    let blocks: Vec<_> = m.files().map(|f| f.blocks()).collect();
    assert_eq!(blocks, [0..0, 0..1, 1..1, 1..3, 3..3]);
    assert_eq!(m.blocks(), 3);
    let owner: Vec<_> = (0..4).map(|n| m.file_of_block(n).map(|f| f.path)).collect();
    assert_eq!(owner, [Some("b"), Some("d"), Some("d"), None]);
    assert_eq!(m.bytes_of(&RoaringBitmap::from_iter([0, 1, 2, 99])), 2 * BLOCK_SIZE + 1);
}

#[test]
fn ten_million_files() {
    // Straight into rows: the listing's own memory is the agent's affair.
    let mut m =
        Manifest::empty(vec![ManifestOrigin::whole(AccessDomain::new("ns", Some("creds")), "file:///x")]);
    for n in 0..10_000_000u64 {
        m.append_object(&object(&format!("{n:08}"), n % 3 * (BLOCK_SIZE / 2 + 1), "1")).unwrap();
    }
    assert_eq!(m.file_count(), 10_000_000);
    assert_eq!(m.find("09999999").unwrap().index, 9_999_999);
    let last = m.file_of_block(m.blocks() - 1).unwrap();
    assert_eq!(last.blocks().end, m.blocks());
    let all: RoaringBitmap = (0..m.blocks()).collect();
    assert_eq!(m.bytes_of(&all), m.bytes());
}

#[test]
fn keys_that_cannot_be_paths_are_skipped_and_the_rest_kept() {
    let mut builder = builder();
    for path in
        ["ok", "../etc/passwd", "a//b", "/abs", "nul\0", "dir/", "file", "file/child", ".", "x/./y", "ok"]
    {
        builder.push(object(path, u64::from(path != "dir/"), "1"));
    }
    builder.push(object(&"s".repeat(256), 1, "1"));
    builder.skip("link", SkipReason::NotAFile);
    let (m, skipped) = builder.finish().unwrap();
    let paths: Vec<_> = m.files().map(|f| f.path).collect();
    assert_eq!(paths, ["file/child", "ok"]);
    assert_eq!(skipped.count, 10);
    assert_eq!(skipped.example, Some((".".into(), SkipReason::DotSegment)));
}

#[test]
fn keys_are_the_origins_and_paths_the_trees() {
    let origin = ManifestOrigin {
        domain: AccessDomain::new("ns", Some("creds")),
        uri: "s3://b/p".into(),
        key_prefix: "p/".into(),
        mount: "imagenet/".into(),
    };
    let mut builder = ManifestBuilder::new(vec![origin]);
    builder.push(object("imagenet/train/1.jpg", 5, "1"));
    let (m, _) = builder.finish().unwrap();
    assert_eq!(m.key(&m.file(0).unwrap()), "p/train/1.jpg");
}

#[test]
fn a_refresh_keeps_what_did_not_change() {
    let old = manifest(&[("a", 2 * BLOCK_SIZE, "1"), ("b", 5, "1"), ("gone", 5, "1"), ("z", 9, "1")]);
    let new = manifest(&[("0", BLOCK_SIZE, "1"), ("a", 2 * BLOCK_SIZE, "1"), ("b", 5, "2"), ("z", 9, "1")]);
    let held: RoaringBitmap = (0..old.blocks()).collect();
    assert_eq!(Unchanged::between(&old, &new).inherited(&held), RoaringBitmap::from_iter([1, 2, 4]));
}

fn of_origins(
    origins: &[(&str, Option<&str>, &str)],
    objects: &[(u16, &str)],
) -> Result<Manifest, BuildError> {
    let origins = origins.iter().map(|(uri, secret, mount)| ManifestOrigin {
        domain: AccessDomain::new("ns", *secret),
        uri: (*uri).into(),
        key_prefix: String::new(),
        mount: (*mount).into(),
    });
    let mut builder = ManifestBuilder::new(origins.collect());
    for (origin, path) in objects {
        builder.push(ListedObject { origin: *origin, ..object(path, 5, "1") });
    }
    builder.finish().map(|(manifest, _)| manifest)
}

#[test]
fn files_of_several_origins_stand_in_one_tree() {
    let m = of_origins(
        &[("s3://a", Some("a"), ""), ("s3://b", None, "b/")],
        &[(1, "b/1"), (0, "b/0"), (0, "z"), (1, "b/c/1")],
    )
    .unwrap();
    let keys: Vec<_> = m.files().map(|file| (file.path, m.key(&file), file.origin)).collect();
    let expected = [("b/0", "b/0", 0), ("b/1", "1", 1), ("b/c/1", "c/1", 1), ("z", "z", 0)];
    assert!(keys.iter().map(|(path, key, origin)| (*path, key.as_str(), *origin)).eq(expected), "{keys:?}");
    assert_eq!(Manifest::decode(&m.encode()).unwrap(), m);
}

#[test]
fn a_path_that_two_origins_claim_is_an_error_that_names_both() {
    let origins = [("s3://a", None, ""), ("s3://b", None, "")];
    for objects in
        [[(0, "x"), (1, "x")], [(1, "x"), (0, "x")], [(0, "x"), (1, "x/y")], [(1, "x/y"), (0, "x")]]
    {
        let error = of_origins(&origins, &objects).unwrap_err().to_string();
        assert!(error.starts_with("the path \"x\" is claimed by two of spec.origins, "), "{error}");
        assert!(error.contains("s3://a") && error.contains("s3://b"), "{error}");
    }
    // One origin's own are skipped, as ever.
    assert_eq!(of_origins(&origins, &[(0, "x"), (0, "x/y"), (1, "z")]).unwrap().file_count(), 2);
}

#[test]
fn an_origin_that_is_added_takes_no_warmth_and_another_identity_does() {
    let files = [(0, "a"), (0, "c")];
    let old = of_origins(&[("s3://a", Some("a"), "")], &files).unwrap();
    let held = RoaringBitmap::from_iter([0, 1]);
    let added = of_origins(
        &[("s3://a", Some("a"), ""), ("s3://b", Some("b"), "b/")],
        &[files[0], files[1], (1, "b/x")],
    );
    assert_eq!(
        Unchanged::between(&old, &added.unwrap()).inherited(&held),
        RoaringBitmap::from_iter([0, 2]),
        "b/x stands between them"
    );
    let other = of_origins(&[("s3://a", Some("b"), "")], &files).unwrap();
    assert!(Unchanged::between(&old, &other).inherited(&held).is_empty());
    assert_ne!(old.object_id(&old.file(0).unwrap()), other.object_id(&other.file(0).unwrap()));
}

#[test]
fn one_access_domain_is_written_once_and_several_beside_their_origins() {
    let origins = |second| [("s3://a", Some("s"), ""), ("s3://b", second, "b/")];
    let one = of_origins(&origins(Some("s")), &[(0, "a")]).unwrap().encode();
    let many = of_origins(&origins(None), &[(0, "a")]).unwrap().encode();
    assert_eq!((one[8], many[8]), (1, 2));
    let hex: String = many[8..].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "0202046e732f730673333a2f2f610000036e732f0673333a2f2f620002622f01000161058080d0e2c6bfce972f00000131"
    );
}

/// A changed encoding changes every manifest's name: raise `FORMAT_VERSION` with it.
#[test]
fn the_encoding_is_pinned() {
    let m = manifest(&[
        ("a/b.bin", 7, "\"x\""),
        ("a/c.bin", BLOCK_SIZE + 1, "\"00112233445566778899aabbccddeeff\""),
    ]);
    let bytes = m.encode();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "4845415254484d4601086e732f6372656473010f73333a2f2f6275636b65742f736574047365742f00020007612f622e62696e\
         078080d0e2c6bfce972f0000032278220205632e62696e818080028080d0e2c6bfce972f0001\
         00112233445566778899aabbccddeeff"
    );
    assert_eq!(
        ManifestHash::of(&bytes).to_string(),
        "68c8c2af2f1b276eb56e09ce8bb41b07e37316bfb00046142c80d628ad2f70eb"
    );
    assert_eq!(Manifest::decode_named(ManifestHash::of(&bytes), &bytes).unwrap(), m);
    assert!(matches!(
        Manifest::decode_named(ManifestHash([0; 32]), &bytes),
        Err(DecodeError::WrongHash { .. })
    ));
}

fn listing() -> impl Strategy<Value = Vec<(String, u64, u8)>> {
    prop::collection::vec(
        ("[ab./\0é-]{0,6}", prop_oneof![Just(0), Just(BLOCK_SIZE), 0..3 * BLOCK_SIZE], 0u8..3),
        0..40,
    )
}

proptest! {
    #[test]
    fn several_origins_decode_to_the_same(
        secrets in prop::collection::vec(prop::option::of("[ab]"), 0..4),
        files in prop::collection::vec("[a-c]{1,3}", 0..6),
    ) {
        let origins: Vec<_> = secrets.iter().map(|secret| ("s3://x", secret.as_deref(), "")).collect();
        let files: Vec<_> = match origins.len() {
            0 => Vec::new(),
            count => files.iter().map(|path| ((path.len() % count) as u16, path.as_str())).collect(),
        };
        let manifest = of_origins(&origins, &files);
        // Paths of one length have one origin, so that no two claim one.
        let manifest = manifest.unwrap();
        let bytes = manifest.encode();
        prop_assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    }
}

fn pushed(listing: &[(String, u64, u8)]) -> ManifestBuilder {
    let mut builder = builder();
    for (path, size, tag) in listing {
        builder.push(object(path, *size, &tag.to_string()));
    }
    builder
}

fn of_listing(listing: &[(String, u64, u8)]) -> (Manifest, Skipped) {
    pushed(listing).finish().unwrap()
}

/// What is encoded at once is what the manifest itself encodes to.
fn is_encoded_the_same(builder: ManifestBuilder, (manifest, skipped): &(Manifest, Skipped)) {
    let (encoded, also_skipped) = builder.encode().unwrap();
    assert_eq!((&encoded.bytes, &also_skipped), (&manifest.encode(), skipped));
    assert_eq!((encoded.listed, encoded.unlisted), (manifest.listed_count(), manifest.unlisted_count()));
    assert_eq!((encoded.size, encoded.blocks), (manifest.bytes(), manifest.blocks()));
}

proptest! {
    #[test]
    fn listings_become_trees(listing in listing()) {
        let (m, skipped) = of_listing(&listing);
        prop_assert!(m.file_count() as u64 + skipped.count <= listing.len() as u64);
        let mut next_block = 0;
        for (index, file) in m.files().enumerate() {
            prop_assert_eq!(file.index, index);
            prop_assert_eq!(file.first_block, next_block);
            next_block = file.blocks().end;
            prop_assert_eq!(m.find(file.path), Some(file));
            prop_assert_eq!(m.file(index), Some(file));
            for number in file.blocks() {
                prop_assert_eq!(m.file_of_block(number), Some(file));
            }
            for other in m.files() {
                prop_assert!(!path::is_below(other.path, file.path), "{} is a file and a directory", file.path);
            }
            prop_assert!(file.path.split('/').all(|s| !matches!(s, "" | "." | "..") && !s.contains('\0')));
        }
        prop_assert_eq!(next_block, m.blocks());
        prop_assert_eq!(m.files().map(|f| f.size).sum::<u64>(), m.bytes());
        let all: RoaringBitmap = (0..m.blocks()).collect();
        prop_assert_eq!(m.bytes_of(&all), m.bytes());
    }

    #[test]
    fn encodings_decode_to_the_same(listing in listing()) {
        let (m, _) = of_listing(&listing);
        let bytes = m.encode();
        let back = Manifest::decode(&bytes).unwrap();
        prop_assert!(back.encode() == bytes);
        prop_assert_eq!(&back, &m);
        let name = ManifestHash::of(&bytes);
        prop_assert_eq!(&Manifest::decode_named_from(name, bytes.as_slice(), bytes.len()).unwrap(), &m);
        let other = Manifest::decode_named_from(ManifestHash([0; 32]), bytes.as_slice(), bytes.len());
        prop_assert_eq!(other, Err(DecodeError::WrongHash { expected: ManifestHash([0; 32]), found: name }));
        is_encoded_the_same(pushed(&listing), &of_listing(&listing));
    }

    #[test]
    fn order_of_listing_does_not_matter(listing in listing()) {
        let mut unique = listing;
        unique.sort();
        unique.dedup_by(|a, b| a.0 == b.0);
        let forward = of_listing(&unique).0;
        unique.reverse();
        prop_assert_eq!(forward, of_listing(&unique).0);
    }

    #[test]
    fn damaged_encodings_never_panic(listing in listing(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = of_listing(&listing).0.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let decoded = Manifest::decode(&bytes);
        let name = ManifestHash::of(&bytes);
        prop_assert_eq!(&Manifest::decode_named_from(name, bytes.as_slice(), bytes.len()), &decoded);
        if let Ok(m) = decoded {
            prop_assert_eq!(m.encode(), bytes);
        }
    }

    #[test]
    fn garbage_is_no_manifest(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
        let mut framed = b"HEARTHMF\x01".to_vec();
        framed.extend(bytes);
        let _ = Manifest::decode(&framed);
    }

    #[test]
    fn selecting_is_filtering(listing in listing(), globs in prop::collection::vec("[ab*/{},.]{1,5}", 1..3)) {
        let (m, _) = of_listing(&listing);
        if let Ok(selection) = Selection::new(globs) {
            let selected: Vec<_> = m.select(&selection).map(|f| f.path).collect();
            let filtered: Vec<_> = m.files().filter(|f| selection.matches(f.path)).map(|f| f.path).collect();
            prop_assert_eq!(selected, filtered);
        }
    }

    #[test]
    fn bytes_of_any_blocks_are_the_sum_of_each(listing in listing(), picked in prop::collection::vec(0u32..200, 0..60)) {
        let (m, _) = of_listing(&listing);
        let picked: RoaringBitmap = picked.into_iter().collect();
        let mut expected = 0;
        for file in m.files() {
            for number in file.blocks().filter(|n| picked.contains(*n)) {
                let range = block::byte_range(file.size, u64::from(number - file.first_block));
                expected += range.end - range.start;
            }
        }
        prop_assert_eq!(m.bytes_of(&picked), expected);
    }

    #[test]
    fn what_is_missing_of_a_selection_and_in_how_many_files(
        listing in listing(),
        globs in prop::option::of("[ab*]{1,2}"),
        held in prop::collection::vec(0u32..100, 0..60),
    ) {
        let (m, _) = of_listing(&listing);
        let held: RoaringBitmap = held.into_iter().filter(|n| *n < m.blocks()).collect();
        let selection = globs.map_or_else(Selection::all, |glob| Selection::new([glob]).unwrap());
        let selected = Selected::find(&m, &selection);
        let files: Vec<_> = m.files().filter(|file| selection.matches(file.path)).collect();
        prop_assert_eq!(selected.files, files.len() as u64);
        prop_assert_eq!(selected.bytes, files.iter().map(|file| file.size).sum::<u64>());
        let missing = selected.missing(&m, &held);
        prop_assert_eq!(selected.bytes_of(&m, &held) + m.bytes_of(&missing), selected.bytes);
        prop_assert!(missing.is_disjoint(&held));
        let not_whole = files.iter().filter(|file| !held.contains_range(file.blocks())).count();
        prop_assert_eq!(m.files_with(&missing).count(), not_whole);
    }

    #[test]
    fn inherited_blocks_have_the_same_content(a in listing(), b in listing(), held in prop::collection::vec(0u32..100, 0..60)) {
        let (old, new) = (of_listing(&a).0, of_listing(&b).0);
        let held: RoaringBitmap = held.into_iter().filter(|n| *n < old.blocks()).collect();
        let inherited = Unchanged::between(&old, &new).inherited(&held);
        for file in new.files() {
            for number in file.blocks() {
                let index = number - file.first_block;
                let was = old.files().find(|was| old.object_id(was) == new.object_id(&file));
                let expected = was.is_some_and(|was| held.contains(was.first_block + index));
                prop_assert_eq!(inherited.contains(number), expected);
            }
        }
        prop_assert_eq!(Unchanged::between(&old, &old).inherited(&held), held);
    }
}
