//! How the index's rows are written down. Every row ends in its own CRC32C,
//! because the database gives flipped bits back without a word.

use hearth_core::manifest::ManifestHash;
use hearth_core::object::ObjectId;
use roaring::RoaringBitmap;

/// The version of everything in the index: an index of another is put aside.
pub(super) const FORMAT: u64 = 1;

/// Blocks of an object that one row speaks of: a row stays below 5 KiB, however
/// large the object.
pub(super) const BLOCKS_PER_ROW: u64 = 1024;

/// Blocks of a manifest that one holdings row speaks of.
pub(super) const BLOCKS_PER_CHUNK: u32 = 1 << 16;

/// The row is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DamagedRow;

/// Key of an object row: the object and which [`BLOCKS_PER_ROW`] blocks of it.
pub(super) type ObjectKey = [u8; 20];

/// The key of the row that has the object's `block`.
pub(super) fn object_key(id: &ObjectId, block: u64) -> ObjectKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&id.0);
    // An object of 2^32 rows would have 2^64 bytes.
    key[16..].copy_from_slice(&((block / BLOCKS_PER_ROW) as u32).to_be_bytes());
    key
}

/// The object that a key speaks of.
pub(super) fn object_of(key: &ObjectKey) -> ObjectId {
    let mut id = [0; 16];
    id.copy_from_slice(&key[..16]);
    ObjectId(id)
}

/// The first block that a key speaks of.
pub(super) fn first_block_of(key: &ObjectKey) -> u64 {
    let mut row = [0; 4];
    row.copy_from_slice(&key[16..]);
    u64::from(u32::from_be_bytes(row)) * BLOCKS_PER_ROW
}

/// The keys of all rows that an object can have.
pub(super) fn object_keys(id: &ObjectId) -> std::ops::RangeInclusive<ObjectKey> {
    let (mut first, mut last) = ([0; 20], [0xff; 20]);
    first[..16].copy_from_slice(&id.0);
    last[..16].copy_from_slice(&id.0);
    first..=last
}

/// Key of a holdings row: the manifest and which [`BLOCKS_PER_CHUNK`] blocks of it.
pub(super) type HoldingKey = [u8; 34];

/// The key of a manifest's `chunk`-th holdings row.
pub(super) fn holding_key(hash: &ManifestHash, chunk: u16) -> HoldingKey {
    let mut key = [0; 34];
    key[..32].copy_from_slice(&hash.0);
    key[32..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The manifest that a key speaks of.
pub(super) fn manifest_of(key: &HoldingKey) -> ManifestHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&key[..32]);
    ManifestHash(hash)
}

/// Adds the checksum of what is there, under its key: a good row under another's
/// key is damage too.
fn seal(key: &[u8], bytes: &mut Vec<u8>) {
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
}

/// What [`seal`] was given.
fn open<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], DamagedRow> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(DamagedRow)?;
    if crc32c::crc32c_append(crc32c::crc32c(key), body) != u32::from_le_bytes(*sum) {
        return Err(DamagedRow);
    }
    Ok(body)
}

/// Encodes a value of the `meta` table.
pub(super) fn encode_meta(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = value.to_vec();
    seal(name.as_bytes(), &mut bytes);
    bytes
}

/// Decodes a value of the `meta` table, which has `N` bytes.
pub(super) fn decode_meta<const N: usize>(name: &str, bytes: &[u8]) -> Result<[u8; N], DamagedRow> {
    open(name.as_bytes(), bytes)?.try_into().map_err(|_| DamagedRow)
}

const ALL_HELD: u8 = 1;
const SOME_HELD: u8 = 2;

/// Which of up to [`BLOCKS_PER_ROW`] blocks of an object are held, and the
/// checksum of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectRow {
    /// Bytes of the whole object, as the manifest says.
    pub(super) size: u64,
    /// CRC32C of each block, `None` for one that is not held.
    pub(super) sums: Vec<Option<u32>>,
}

impl ObjectRow {
    /// A row that has `blocks` blocks and holds none.
    pub(super) fn empty(size: u64, blocks: usize) -> Self {
        Self { size, sums: vec![None; blocks] }
    }

    pub(super) fn holds_any(&self) -> bool {
        self.sums.iter().any(Option::is_some)
    }

    pub(super) fn encode(&self, key: &ObjectKey) -> Vec<u8> {
        let count = self.sums.len();
        let mut bytes = Vec::with_capacity(15 + count / 8 + 4 * count + 5);
        let all = self.sums.iter().all(Option::is_some);
        bytes.push(if all { ALL_HELD } else { SOME_HELD });
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&(count as u16).to_le_bytes());
        if !all {
            let mut bits = vec![0u8; count.div_ceil(8)];
            for (index, _) in self.sums.iter().enumerate().filter(|(_, sum)| sum.is_some()) {
                bits[index / 8] |= 1 << (index % 8);
            }
            bytes.extend_from_slice(&bits);
        }
        for sum in self.sums.iter().flatten() {
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        seal(key, &mut bytes);
        bytes
    }

    pub(super) fn decode(key: &ObjectKey, bytes: &[u8]) -> Result<Self, DamagedRow> {
        let body = open(key, bytes)?;
        let (kind, body) = body.split_first().ok_or(DamagedRow)?;
        let (size, body) = body.split_first_chunk::<8>().ok_or(DamagedRow)?;
        let (count, body) = body.split_first_chunk::<2>().ok_or(DamagedRow)?;
        let count = usize::from(u16::from_le_bytes(*count));
        let (bits, sums) = match *kind {
            ALL_HELD => (None, body),
            SOME_HELD if body.len() >= count.div_ceil(8) => {
                let (bits, sums) = body.split_at(count.div_ceil(8));
                (Some(bits), sums)
            }
            _ => return Err(DamagedRow),
        };
        let mut next = sums.chunks_exact(4);
        let mut row = Self::empty(u64::from_le_bytes(*size), count);
        for (index, sum) in row.sums.iter_mut().enumerate() {
            if bits.is_none_or(|bits| bits[index / 8] & 1 << (index % 8) != 0) {
                let bytes = next.next().and_then(|chunk| chunk.try_into().ok()).ok_or(DamagedRow)?;
                *sum = Some(u32::from_le_bytes(bytes));
            }
        }
        match next.next() {
            None if next.remainder().is_empty() => Ok(row),
            _ => Err(DamagedRow),
        }
    }
}

/// Encodes a chunk of a manifest's held blocks.
pub(super) fn encode_holding(key: &HoldingKey, blocks: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks.serialized_size() + 4);
    blocks.serialize_into(&mut bytes).expect("writing into memory does not fail");
    seal(key, &mut bytes);
    bytes
}

pub(super) fn decode_holding(key: &HoldingKey, bytes: &[u8]) -> Result<RoaringBitmap, DamagedRow> {
    RoaringBitmap::deserialize_from(open(key, bytes)?).map_err(|_| DamagedRow)
}

/// A block of an object.
pub(super) type BlockOf = (ObjectId, u64);

/// Encodes a note of blocks that are not synced.
pub(super) fn encode_unsynced(number: u64, blocks: &[BlockOf]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 * blocks.len() + 4);
    for (id, block) in blocks {
        bytes.extend_from_slice(&id.0);
        bytes.extend_from_slice(&block.to_le_bytes());
    }
    seal(&number.to_le_bytes(), &mut bytes);
    bytes
}

pub(super) fn decode_unsynced(number: u64, bytes: &[u8]) -> Result<Vec<BlockOf>, DamagedRow> {
    let (notes, []) = open(&number.to_le_bytes(), bytes)?.as_chunks::<24>() else { return Err(DamagedRow) };
    let decode = |note: &[u8; 24]| {
        let (id, block) = note.split_first_chunk::<16>()?;
        Some((ObjectId(*id), u64::from_le_bytes(block.try_into().ok()?)))
    };
    notes.iter().map(|note| decode(note).ok_or(DamagedRow)).collect()
}

/// How far a manifest has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ManifestState {
    /// Stored, and not in the inventory.
    Stored,
    /// In the inventory.
    Adopted,
    /// Out of the inventory, and its objects are being freed.
    Retiring,
}

/// What the index knows of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ManifestRow {
    pub(super) state: ManifestState,
    /// `namespace/name`.
    pub(super) dataset: String,
}

impl ManifestRow {
    pub(super) fn encode(&self, hash: &ManifestHash) -> Vec<u8> {
        let mut bytes = vec![match self.state {
            ManifestState::Stored => 0,
            ManifestState::Adopted => 1,
            ManifestState::Retiring => 2,
        }];
        bytes.extend_from_slice(self.dataset.as_bytes());
        seal(&hash.0, &mut bytes);
        bytes
    }

    pub(super) fn decode(hash: &ManifestHash, bytes: &[u8]) -> Result<Self, DamagedRow> {
        let (state, dataset) = open(&hash.0, bytes)?.split_first().ok_or(DamagedRow)?;
        let state = match state {
            0 => ManifestState::Stored,
            1 => ManifestState::Adopted,
            2 => ManifestState::Retiring,
            _ => return Err(DamagedRow),
        };
        let dataset = String::from_utf8(dataset.to_vec()).map_err(|_| DamagedRow)?;
        Ok(Self { state, dataset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Another encoding needs another `FORMAT`: it makes every store cold.
    #[test]
    fn encodings_are_pinned() {
        let key = object_key(&ObjectId([3; 16]), 1025);
        assert_eq!(hex(&key), format!("{}00000001", "03".repeat(16)));
        let some = ObjectRow { size: 9 << 20, sums: vec![Some(1), None, Some(2)] };
        assert_eq!(hex(&some.encode(&key)), "0200009000000000000300050100000002000000710255bf");
        let all = ObjectRow { size: 7, sums: vec![Some(0xdead_beef)] };
        assert_eq!(hex(&all.encode(&key)), "0107000000000000000100efbeaddecf4669f7");
        let key = holding_key(&ManifestHash([4; 32]), 258);
        assert_eq!(hex(&key), format!("{}0102", "04".repeat(32)));
        assert_eq!(
            hex(&encode_holding(&key, &(5..7).collect())),
            "3a30000001000000000001001000000005000600b8da626e"
        );
        let row = ManifestRow { state: ManifestState::Adopted, dataset: "ns/d".into() };
        assert_eq!(hex(&row.encode(&ManifestHash([4; 32]))), "016e732f645819c24d");
        let note = encode_unsynced(7, &[(ObjectId([3; 16]), 258)]);
        assert_eq!(hex(&note), format!("{}02010000000000005eab40b8", "03".repeat(16)));
    }

    #[test]
    fn a_row_under_another_key_is_damaged() {
        let row = ObjectRow { size: 7, sums: vec![Some(1)] };
        let key = object_key(&ObjectId([3; 16]), 0);
        let bytes = row.encode(&key);
        assert_eq!(ObjectRow::decode(&key, &bytes), Ok(row));
        assert_eq!(ObjectRow::decode(&object_key(&ObjectId([4; 16]), 0), &bytes), Err(DamagedRow));
    }

    proptest! {
        #[test]
        fn rows_come_back_and_flips_are_seen(
            size: u64,
            sums in prop::collection::vec(any::<Option<u32>>(), 0..40),
            flip: prop::sample::Index,
        ) {
            let key = object_key(&ObjectId([1; 16]), 0);
            let row = ObjectRow { size, sums };
            let mut bytes = row.encode(&key);
            prop_assert_eq!(ObjectRow::decode(&key, &bytes), Ok(row));
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(ObjectRow::decode(&key, &bytes), Err(DamagedRow));
        }

        #[test]
        fn holdings_come_back(blocks in prop::collection::btree_set(0..1u32 << 16, 0..50)) {
            let key = holding_key(&ManifestHash([4; 32]), 0);
            let blocks: RoaringBitmap = blocks.into_iter().collect();
            let mut bytes = encode_holding(&key, &blocks);
            prop_assert_eq!(decode_holding(&key, &bytes), Ok(blocks));
            bytes[0] ^= 1;
            prop_assert_eq!(decode_holding(&key, &bytes), Err(DamagedRow));
        }

        #[test]
        fn notes_come_back(number: u64, noted: Vec<([u8; 16], u64)>, flip: prop::sample::Index) {
            let blocks: Vec<BlockOf> = noted.into_iter().map(|(id, block)| (ObjectId(id), block)).collect();
            let mut bytes = encode_unsynced(number, &blocks);
            prop_assert_eq!(decode_unsynced(number, &bytes), Ok(blocks));
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode_unsynced(number, &bytes), Err(DamagedRow));
        }

        #[test]
        fn garbage_is_damage(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(ObjectRow::decode(&[0; 20], &bytes).is_err());
            prop_assert!(decode_holding(&[0; 34], &bytes).is_err());
            prop_assert!(ManifestRow::decode(&ManifestHash([0; 32]), &bytes).is_err());
        }
    }
}
