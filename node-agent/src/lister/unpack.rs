//! Unpacks a list of files: plain text, gzip or zstd, told apart by how it begins.

use hearth_core::file_list::{FileListError, LONGEST_LIST};
use std::io::Read;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Why bytes are no list of files.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error(transparent)]
    List(#[from] FileListError),
    #[error("it cannot be unpacked as {0}: {1}")]
    Damaged(&'static str, String),
}

/// The text in `bytes`. Takes no more memory than the longest list that is allowed.
pub(super) fn unpack(bytes: Vec<u8>) -> Result<Vec<u8>, UnpackError> {
    if bytes.starts_with(GZIP) {
        // Several gzip streams behind each other are one, as for gunzip.
        let mut text = Vec::new();
        read_all("gzip", flate2::read::MultiGzDecoder::new(bytes.as_slice()), &mut text)?;
        return Ok(text);
    }
    if bytes.starts_with(ZSTD) {
        let damaged = |error: &dyn std::fmt::Display| UnpackError::Damaged("zstd", error.to_string());
        let mut text = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let frame =
                ruzstd::decoding::StreamingDecoder::new(&mut rest).map_err(|error| damaged(&error))?;
            read_all("zstd", frame, &mut text)?;
        }
        return Ok(text);
    }
    Ok(bytes)
}

/// Appends to `text` as much as a list may have.
fn read_all(format: &'static str, packed: impl Read, text: &mut Vec<u8>) -> Result<(), UnpackError> {
    let most = LONGEST_LIST.saturating_sub(text.len()) as u64 + 1;
    let read = packed.take(most).read_to_end(text);
    read.map_err(|error| UnpackError::Damaged(format, error.to_string()))?;
    if text.len() > LONGEST_LIST {
        return Err(FileListError::TooLong.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        for (format, packed) in [("gzip", gzip(b"a\nb\n")), ("zstd", zstd(b"a\nb\n"))] {
            let error = unpack(packed[..packed.len() - 3].to_vec()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("it cannot be unpacked as {format}: ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn packed_text_comes_back(text in "[a-z/\n]{0,300}", more in "[a-z\n]{0,30}") {
            let whole = format!("{text}{more}").into_bytes();
            prop_assert_eq!(unpack(whole.clone()).unwrap(), whole.clone());
            for pack in [gzip, zstd] {
                prop_assert_eq!(unpack(pack(&whole)).unwrap(), whole.clone());
                let parts = [pack(text.as_bytes()), pack(more.as_bytes())].concat();
                prop_assert_eq!(unpack(parts).unwrap(), whole.clone());
            }
        }

        #[test]
        fn garbage_is_text_or_an_error(magic in prop::sample::select(vec![&b""[..], GZIP, ZSTD]), bytes: Vec<u8>) {
            let _ = unpack([magic, &bytes].concat());
        }
    }
}
