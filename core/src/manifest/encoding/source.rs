//! Where an encoding's bytes come from: memory, or a reader, in pieces.

use super::DecodeError;
use std::io;

/// Bytes read at a time.
const PIECE: usize = if cfg!(test) { 5 } else { 1 << 20 };

/// Bytes of an encoding, of which more may come.
pub trait Source {
    /// Those that are there.
    fn bytes(&self) -> &[u8];
    /// Leaves the first of them behind.
    fn skip(&mut self, count: usize);
    /// Gets more; whether there were any.
    fn more(&mut self) -> io::Result<bool>;
}

impl Source for &[u8] {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn skip(&mut self, count: usize) {
        *self = &self[count..];
    }

    fn more(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// What a reader gives: a piece is in memory at a time, or the longest file's row.
pub(super) struct Pieces<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
}

impl<R: io::Read> Pieces<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), start: 0 }
    }
}

impl<R: io::Read> Source for Pieces<R> {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn skip(&mut self, count: usize) {
        self.start += count;
    }

    fn more(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut piece = io::Read::take(&mut self.reader, PIECE as u64);
        Ok(io::Read::read_to_end(&mut piece, &mut self.buffer)? > 0)
    }
}

/// Why a part of an encoding is not to be had.
#[derive(Debug)]
pub(in crate::manifest) enum Fault {
    /// It is not what it should be.
    Damaged(&'static str),
    /// Its bytes cannot be read.
    Io(io::Error),
}

impl Fault {
    /// Of the file with this number.
    pub(super) fn at(self, file: u64) -> DecodeError {
        match self {
            Self::Damaged(what) => DecodeError::Damaged { file, what },
            Self::Io(error) => error.into(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads what `parse` finds at the beginning, which gives it with the bytes behind it. `what` is said
/// of bytes in which it does not.
pub(super) fn take<T>(
    source: &mut impl Source,
    what: &'static str,
    parse: impl Fn(&[u8]) -> postcard::Result<(T, &[u8])>,
) -> Result<T, Fault> {
    loop {
        let bytes = source.bytes();
        let cut_short = match parse(bytes) {
            Ok((value, behind)) => {
                let count = bytes.len() - behind.len();
                source.skip(count);
                return Ok(value);
            }
            Err(error) => matches!(error, postcard::Error::DeserializeUnexpectedEnd),
        };
        if !cut_short || !source.more()? {
            return Err(Fault::Damaged(what));
        }
    }
}
