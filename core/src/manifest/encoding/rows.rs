//! Files as they stand in an encoding, one after the other.

use super::source::{Fault, Source, take};
use crate::manifest::{File, ListedObject};
use crate::object::Validator;
use crate::prefix::shared_prefix;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct EncodedFile<'a> {
    shared: u32,
    rest: &'a str,
    size: u64,
    modified: i64,
    origin: u16,
    validator: Validator,
}

/// Writes files behind each other.
pub(in crate::manifest) struct RowWriter {
    bytes: Vec<u8>,
    previous: String,
    /// Behind each file stands whether it is unlisted.
    shows: bool,
}

impl RowWriter {
    /// Writes behind these bytes.
    pub(in crate::manifest) fn behind(bytes: Vec<u8>, shows: bool) -> Self {
        Self { bytes, previous: String::new(), shows }
    }

    /// Writes a file; the fewer bytes the more its path shares with that of the one before.
    pub(in crate::manifest) fn push(&mut self, file: &File<'_>) {
        let shared = shared_prefix(&self.previous, file.path);
        let rest = &file.path[shared..];
        let encoded = EncodedFile {
            shared: shared as u32,
            rest,
            size: file.size,
            modified: file.modified,
            origin: file.origin,
            validator: file.validator.clone(),
        };
        let mut bytes = super::extend(std::mem::take(&mut self.bytes), &encoded);
        if self.shows {
            bytes = super::extend(bytes, &file.unlisted);
        }
        self.bytes = bytes;
        self.previous.truncate(shared);
        self.previous.push_str(rest);
    }

    /// All that was written.
    pub(in crate::manifest) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads what a [`RowWriter`] wrote.
pub(in crate::manifest) struct RowReader<S> {
    source: S,
    path: String,
    shows: bool,
}

impl<S: Source> RowReader<S> {
    pub(in crate::manifest) fn new(source: S, shows: bool) -> Self {
        Self { source, path: String::new(), shows }
    }

    /// Whether all bytes are read.
    pub(in crate::manifest) fn is_at_end(&mut self) -> Result<bool, Fault> {
        Ok(self.source.bytes().is_empty() && !self.source.more()?)
    }

    /// The next file, whatever its fields say.
    pub(in crate::manifest) fn read(&mut self) -> Result<ListedObject, Fault> {
        let Self { source, path, shows } = self;
        let mut object = take(source, "its fields cannot be read", |bytes| {
            let (file, behind) = postcard::take_from_bytes::<EncodedFile<'_>>(bytes)?;
            let EncodedFile { shared, rest, size, modified, origin, validator } = file;
            let object = path.get(..shared as usize).map(|shared| {
                let path = format!("{shared}{rest}");
                ListedObject { origin, path, size, modified, validator, unlisted: false }
            });
            Ok((object, behind))
        })?
        .ok_or(Fault::Damaged("it shares more with the path before than that has"))?;
        if *shows {
            let what = "whether it is unlisted cannot be read";
            object.unlisted = take(source, what, |bytes| postcard::take_from_bytes(bytes))?;
        }
        path.clone_from(&object.path);
        Ok(object)
    }
}
