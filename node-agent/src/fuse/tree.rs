//! The directories of a manifest's files. Pure.
//!
//! Files stand in path order, so that a directory is a run of them: it costs a few
//! numbers, and a file costs one. Inode numbers and offsets of listings follow from the
//! manifest, the files that are shown and the root: another process finds the same.

use hearth_core::manifest::{File, Manifest};
use roaring::RoaringBitmap;
use std::ops::Range;
use std::sync::Arc;

/// The inode number of the root; directories follow it.
pub(crate) const ROOT: u64 = 1;
/// The inode number of the manifest's first file.
const FILES: u64 = 1 << 32;
/// Offsets of a listing below this are `.` and `..`.
const DOTS: u64 = 2;

/// What an inode number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory, by its place among them.
    Directory(u32),
    /// A file, by its index in the manifest.
    File(u32),
}

impl Node {
    pub(crate) fn inode(self) -> u64 {
        match self {
            Self::Directory(place) => ROOT + u64::from(place),
            Self::File(index) => FILES + u64::from(index),
        }
    }
}

/// One directory; they stand in the order of a walk.
#[derive(Debug)]
struct Directory {
    /// Its files and those below it, as places among the files.
    files: Range<u32>,
    /// The first directory behind all that are below it.
    after: u32,
    parent: u32,
    /// Bytes of its path with the slash at the end.
    prefix: u32,
}

/// An entry of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) node: Node,
    pub(crate) name: &'a str,
    /// Where the listing goes on behind it.
    pub(crate) next: u64,
}

/// Files of a manifest, rooted at one directory.
#[derive(Debug)]
pub(crate) struct Tree {
    manifest: Arc<Manifest>,
    /// Indices in the manifest, in path order.
    files: Vec<u32>,
    directories: Vec<Directory>,
    newest: i64,
    bytes: u64,
}

impl Tree {
    /// Those of `files` that lie below `root`, a directory's path; the empty path for all.
    pub(crate) fn new(manifest: Arc<Manifest>, files: &RoaringBitmap, root: &str) -> Self {
        let below =
            |path: &str| root.is_empty() || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        let shown = |index: &u32| manifest.file(*index as usize).is_some_and(|file| below(file.path));
        let files: Vec<u32> = files.iter().filter(shown).collect();
        let prefix = if root.is_empty() { 0 } else { root.len() as u32 + 1 };
        let all = 0..files.len() as u32;
        let mut directories = vec![Directory { files: all, after: 0, parent: 0, prefix }];
        let mut open: Vec<u32> = vec![0];
        let (mut before, mut bytes) = ("", 0);
        for (place, index) in files.iter().enumerate() {
            let Some(file) = manifest.file(*index as usize) else { continue };
            bytes += file.size;
            let place = place as u32;
            let path = file.path;
            let common = before.bytes().zip(path.bytes()).take_while(|(one, other)| one == other).count();
            close(&mut directories, &mut open, place, |directory| directory.prefix as usize > common);
            let parent = open.last().copied().unwrap_or(0);
            let known = directories[parent as usize].prefix as usize;
            for (at, _) in path[known..].match_indices('/') {
                let parent = open.last().copied().unwrap_or(0);
                open.push(directories.len() as u32);
                let prefix = (known + at + 1) as u32;
                directories.push(Directory { files: place..place, after: 0, parent, prefix });
            }
            before = path;
        }
        let end = files.len() as u32;
        close(&mut directories, &mut open, end, |_| true);
        directories[0].files = 0..end;
        directories[0].after = directories.len() as u32;
        let newest = manifest.newest();
        Self { manifest, files, directories, newest, bytes }
    }

    /// What has this inode number.
    pub(crate) fn node(&self, inode: u64) -> Option<Node> {
        match inode.checked_sub(FILES) {
            Some(index) => {
                let index = u32::try_from(index).ok()?;
                self.files.binary_search(&index).is_ok().then_some(Node::File(index))
            }
            None => {
                let place = u32::try_from(inode.checked_sub(ROOT)?).ok()?;
                ((place as usize) < self.directories.len()).then_some(Node::Directory(place))
            }
        }
    }

    /// The manifest's file at `index`.
    pub(crate) fn file(&self, index: u32) -> Option<File<'_>> {
        self.manifest.file(index as usize)
    }

    /// The time of all directories, nanoseconds since 1970.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// How many files it shows, and their bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.files.len() as u64, self.bytes)
    }

    /// The directory that a directory is in; the root is in itself.
    pub(crate) fn parent(&self, directory: u32) -> Node {
        Node::Directory(self.directories.get(directory as usize).map_or(0, |found| found.parent))
    }

    /// What a directory has by this name.
    pub(crate) fn lookup(&self, directory: u32, name: &str) -> Option<Node> {
        let found = self.directories.get(directory as usize)?;
        let Range { start, end } = found.files;
        let among = &self.files[start as usize..end as usize];
        let at = among.partition_point(|index| self.name(found, *index).0 < name);
        let index = *among.get(at)?;
        match self.name(found, index) {
            (same, is_directory) if same == name => match is_directory {
                true => self.child(directory, start + at as u32).map(Node::Directory),
                false => Some(Node::File(index)),
            },
            _ => None,
        }
    }

    /// What stands in a directory from an offset on, without `.` and `..`, whose
    /// offsets are 0 and 1.
    pub(crate) fn list(&self, directory: u32, offset: u64) -> impl Iterator<Item = Entry<'_>> {
        let found = self.directories.get(directory as usize);
        let first = u32::try_from(offset.saturating_sub(DOTS)).unwrap_or(u32::MAX);
        let mut at = found.map_or(0, |found| found.files.start.saturating_add(first));
        let mut child = self.child_behind(directory, at);
        std::iter::from_fn(move || {
            let found = found.filter(|found| at < found.files.end)?;
            let start = found.files.start;
            let index = *self.files.get(at as usize)?;
            let (name, _) = self.name(found, index);
            let below = child.and_then(|child| Some((child, self.directories.get(child as usize)?)));
            let node = match below {
                Some((place, below)) if below.files.start == at => {
                    at = below.files.end;
                    child = Some(below.after).filter(|after| *after < found.after);
                    Node::Directory(place)
                }
                _ => {
                    at += 1;
                    Node::File(index)
                }
            };
            Some(Entry { node, name, next: DOTS + u64::from(at - start) })
        })
    }

    /// The name that a file, or what it lies in, has in a directory; whether it lies deeper.
    fn name(&self, directory: &Directory, index: u32) -> (&str, bool) {
        let path = self.manifest.file(index as usize).map_or("", |file| file.path);
        let rest = path.get(directory.prefix as usize..).unwrap_or("");
        rest.split_once('/').map_or((rest, false), |(name, _)| (name, true))
    }

    /// The directory in `directory` that begins with the file at this place.
    fn child(&self, directory: u32, place: u32) -> Option<u32> {
        let child = self.child_behind(directory, place)?;
        (self.directories[child as usize].files.start == place).then_some(child)
    }

    /// The first directory in `directory` that begins at this place or behind it.
    fn child_behind(&self, directory: u32, place: u32) -> Option<u32> {
        let found = self.directories.get(directory as usize)?;
        let below = &self.directories[directory as usize + 1..found.after as usize];
        // Of those that begin with the same file the outermost stands first.
        let behind = below.partition_point(|below| below.files.start < place);
        let child = directory + 1 + behind as u32;
        (child < found.after).then_some(child)
    }
}

/// Ends directories for as long as `ends` says so, the root never.
fn close(directories: &mut [Directory], open: &mut Vec<u32>, place: u32, ends: impl Fn(&Directory) -> bool) {
    let count = directories.len() as u32;
    while let Some(last) = open.last().copied().filter(|last| *last > 0) {
        let directory = &mut directories[last as usize];
        if !ends(directory) {
            return;
        }
        directory.files.end = place;
        directory.after = count;
        open.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::manifest::{ListedObject, ManifestBuilder, ManifestOrigin};
    use hearth_core::object::{AccessDomain, Validator};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn manifest(paths: &[String]) -> Arc<Manifest> {
        let origin = ManifestOrigin::whole(AccessDomain::new("n", None), "s3://b");
        let mut builder = ManifestBuilder::new(vec![origin]);
        for path in paths {
            builder.push(ListedObject {
                origin: 0,
                path: path.clone(),
                size: path.len() as u64,
                modified: 7,
                validator: Validator::Modified(1),
                unlisted: false,
            });
        }
        Arc::new(builder.finish().unwrap().0)
    }

    /// What a plain directory would have: names, and the files' indices.
    fn naive(manifest: &Manifest, shown: &RoaringBitmap, directory: &str) -> BTreeMap<String, Option<u32>> {
        let files = manifest.files().filter(|file| shown.contains(file.index as u32));
        let below = files.filter_map(|file| Some((file.path.strip_prefix(directory)?, file.index as u32)));
        below
            .map(|(rest, index)| match rest.split_once('/') {
                Some((name, _)) => (name.to_owned(), None),
                None => (rest.to_owned(), Some(index)),
            })
            .collect()
    }

    fn check(tree: &Tree, manifest: &Manifest, shown: &RoaringBitmap, at: u32, path: &str, seen: &mut u64) {
        let expected = naive(manifest, shown, path);
        let mut listed = BTreeMap::new();
        // One at a time, each taken up where the last one ended.
        let mut offset = 0;
        while let Some(entry) = tree.list(at, offset).next() {
            assert!(entry.next > offset.max(1));
            offset = entry.next;
            assert_eq!(tree.lookup(at, entry.name), Some(entry.node), "{path}{}", entry.name);
            assert_eq!(tree.node(entry.node.inode()), Some(entry.node));
            let index = match entry.node {
                Node::File(index) => {
                    *seen += 1;
                    Some(index)
                }
                Node::Directory(place) => {
                    assert_eq!(tree.parent(place), Node::Directory(at));
                    check(tree, manifest, shown, place, &format!("{path}{}/", entry.name), seen);
                    None
                }
            };
            assert!(listed.insert(entry.name.to_owned(), index).is_none(), "{} twice", entry.name);
        }
        assert_eq!(tree.list(at, 0).count(), listed.len());
        assert_eq!(listed, expected, "{path}");
        for name in ["", "a0", "zz", "a/b", ".", "b!"] {
            assert!(listed.contains_key(name) || tree.lookup(at, name).is_none());
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_plain_directory_would_be(
            paths in prop::collection::btree_set("[ab!][-a.]?(/[ab!][-a.]?){0,3}", 0..40),
            root in prop::sample::select(vec!["", "a", "b/a", "none"]),
            leave_out in 0u32..5,
        ) {
            let manifest = manifest(&paths.into_iter().collect::<Vec<_>>());
            let picked: RoaringBitmap =
                (0..manifest.file_count() as u32).filter(|index| leave_out == 0 || index % 5 != leave_out).collect();
            let tree = Tree::new(manifest.clone(), &picked, root);
            let prefix = if root.is_empty() { String::new() } else { format!("{root}/") };
            let shown: RoaringBitmap = picked
                .iter()
                .filter(|index| manifest.file(*index as usize).unwrap().path.starts_with(&prefix))
                .collect();
            let mut seen = 0;
            check(&tree, &manifest, &shown, 0, &prefix, &mut seen);
            prop_assert_eq!(seen, shown.len());
            prop_assert_eq!(tree.size().0, shown.len());
        }
    }
}
