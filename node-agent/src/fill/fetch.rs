//! Fetches one run of blocks: one request, read into blocks that are written while
//! the next one comes.

use super::courtesy::Answers;
use super::demands::Demands;
use super::job::Request;
use super::plan::Run;
use super::room::{MakeRoom, NoRoom, Visitor};
use super::source::{FillError, Source};
use crate::blocks::Blocks;
use crate::metrics::Metrics;
use crate::origin::{Origin, OriginError, Urgency, Wanted};
use crate::store::{Reservation, Store, StoreError};
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, ready};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryFutureExt};
use hearth_core::block::{BlockNumber, byte_range};
use hearth_core::manifest::File;
use roaring::RoaringBitmap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What bytes in memory are counted in, so that a count fits a semaphore's.
const PAGE: u64 = 4096;

/// What all fetches share.
pub(super) struct Fetcher {
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    /// Who waits for blocks.
    pub(super) demands: Demands,
    /// Where blocks go that are not kept.
    pub(super) blocks: Arc<Blocks>,
    /// Who makes room for the others.
    pub(super) room: Arc<dyn MakeRoom>,
    /// Memory for bytes that have come and are not yet kept.
    pub(super) buffer: Arc<Semaphore>,
    /// Told when a request has ended, though its blocks may not be kept yet.
    pub(super) freed: Arc<Notify>,
    /// Bytes that have come, kept or not.
    pub(super) came: AtomicU64,
    /// How soon answers begin to come.
    pub(super) answers: Answers,
}

/// What a request has while it needs the origin.
pub(super) struct Slot {
    pub(super) _permit: OwnedSemaphorePermit,
    /// Tells how many there are that nobody waits for.
    pub(super) _background: Option<Arc<()>>,
}

/// How a run ended.
#[derive(Default)]
pub(super) struct Fetched {
    /// Block numbers that are kept now.
    pub(super) done: RoaringBitmap,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Bytes that came and were not kept.
    pub(super) through: u64,
    /// What went wrong with the others; nothing when it was cancelled.
    pub(super) error: Option<FillError>,
}

/// Room for a semaphore of that many bytes.
pub(super) fn pages(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(PAGE)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// What becomes of blocks that have come.
enum Keeping {
    /// There is room for all of them.
    Reserved(Reservation),
    /// Those for which there can be made room; somebody waits for them, and they are handed
    /// over anyway.
    IfWorth { over_quota: bool },
    /// None: the file is unlisted.
    Never,
}

/// How a block's write ended.
struct Written {
    number: BlockNumber,
    bytes: u64,
    /// Whether it was kept.
    result: Result<bool, FillError>,
}

/// The state of one run.
struct Fetch<'a> {
    fetcher: &'a Fetcher,
    source: &'a Source,
    run: &'a Run,
    urgency: Urgency,
    file: File<'a>,
    /// The next block to read.
    next: BlockNumber,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    keeping: Keeping,
    fetched: Fetched,
}

impl Fetcher {
    /// Fetches a run. `slot` is given back as soon as the origin is no longer needed.
    pub(super) async fn fetch(&self, request: &Request, cancel: CancellationToken, slot: Slot) -> Fetched {
        let timer = self.metrics.fill_seconds.start_timer();
        let mut fetched = Fetched::default();
        let Request { source, run, .. } = request;
        let Some(file) = source.manifest.file(run.file) else { return fetched };
        let keeping = match cancel.run_until_cancelled(self.keeping(request, bytes_of(&file, run))).await {
            Some(Ok(keeping)) => keeping,
            failed => {
                timer.stop_and_discard();
                fetched.error = failed.and_then(Result::err).map(FillError::from);
                return fetched;
            }
        };
        let mut fetch = Fetch {
            fetcher: self,
            source,
            run,
            urgency: if request.urgent { Urgency::Reader } else { Urgency::Background },
            file,
            next: run.numbers.start,
            writes: FuturesUnordered::new(),
            keeping,
            fetched,
        };
        if let Some(Err(error)) = cancel.run_until_cancelled(fetch.read()).await {
            fetch.fetched.error = Some(error);
        }
        // From here on there is nothing to cancel, and no slot to gain by it.
        cancel.cancel();
        drop(slot);
        self.freed.notify_one();
        while let Some(written) = fetch.writes.next().await {
            if let Err(error) = fetch.written(written) {
                fetch.fetched.error.get_or_insert(error);
            }
        }
        timer.observe_duration();
        fetch.fetched
    }

    /// Sees to room for blocks of that many bytes.
    async fn keeping(&self, request: &Request, bytes: u64) -> Result<Keeping, NoRoom> {
        let hash = request.source.hash;
        if request.run.unlisted {
            return Ok(Keeping::Never);
        }
        if !request.urgent {
            let numbers = request.run.numbers.clone();
            return tokio::select! {
                reserved = self.room.reserve(hash, request.run.file, bytes) => Ok(Keeping::Reserved(reserved?)),
                // Somebody has come to wait for it meanwhile.
                () = self.demands.awaited(hash, numbers) => Ok(Keeping::IfWorth { over_quota: false }),
            };
        }
        if request.over_quota {
            return Ok(Keeping::IfWorth { over_quota: true });
        }
        // Whoever waits does not wait for room, nor for a disk that fails.
        Ok(match self.room.free(hash, request.run.file, bytes).await {
            Ok(Some(reservation)) => Keeping::Reserved(reservation),
            Ok(None) | Err(_) => Keeping::IfWorth { over_quota: false },
        })
    }
}

impl Fetch<'_> {
    /// Reads all blocks of the run, trying again from where it came to.
    async fn read(&mut self) -> Result<(), FillError> {
        let origin = self.source.origin(self.file.origin)?;
        let mut pauses = origin.retries().begin();
        loop {
            let before = self.next;
            let error = match self.read_once(origin.as_ref()).await {
                Err(FillError::Origin(error)) => error,
                other => return other,
            };
            if self.next != before {
                pauses.progressed();
            }
            let Some(pause) = pauses.after(&error) else { return Err(error.into()) };
            self.fetcher.metrics.origin_retries.inc();
            tokio::time::sleep(pause).await;
        }
    }

    async fn read_once(&mut self, origin: &dyn Origin) -> Result<(), FillError> {
        // Before the memory: whoever has some must get on without waiting for who waits for some.
        let _turn = match self.urgency {
            Urgency::Reader => origin.turn(Urgency::Reader).await,
            Urgency::Background => tokio::select! {
                turn = origin.turn(Urgency::Background) => turn,
                // Somebody has come to wait for it meanwhile.
                () = self.fetcher.demands.awaited(self.source.hash, self.run.numbers.clone()) => {
                    origin.turn(Urgency::Reader).await
                }
            },
        };
        // Before the request, so that no connection waits for memory with its answer half read.
        let mut memory = self.memory(self.next).await?;
        let range = self.bytes(self.next).start..self.bytes(self.run.numbers.end - 1).end;
        let key = self.source.manifest.key(&self.file);
        let wanted = Wanted { key: &key, validator: self.file.validator, size: self.file.size, range };
        let asked = Instant::now();
        let mut stream = origin.get(wanted).await?;
        self.fetcher.answers.came(asked.elapsed());
        let mut block = Assembly::new(&self.bytes(self.next));
        loop {
            let chunk = tokio::select! {
                chunk = stream.next() => chunk,
                Some(written) = self.writes.next(), if !self.writes.is_empty() => {
                    self.written(written)?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Err(self.broken(&key).into()) };
            let mut chunk = chunk?;
            self.fetcher.came.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            while !chunk.is_empty() {
                let Some(data) = block.add(&mut chunk) else { continue };
                self.write(data, memory);
                if self.next == self.run.numbers.end {
                    if chunk.is_empty() && stream.next().await.is_none() {
                        return Ok(());
                    }
                    let what = format!("{key} has more bytes than it was listed with");
                    return Err(OriginError::Changed(what).into());
                }
                block = Assembly::new(&self.bytes(self.next));
                memory = self.memory(self.next).await?;
            }
        }
    }

    /// Hands a whole block to whoever waits for it and to the store; it is polled beside
    /// the reading.
    fn write(&mut self, data: Bytes, memory: OwnedSemaphorePermit) {
        let (hash, file, number) = (self.source.hash, self.run.file, self.next);
        let index = u64::from(number - self.file.first_block);
        let bytes = data.len() as u64;
        let fetcher = self.fetcher;
        // Before it is handed over: who asks next finds it there.
        let arriving = fetcher.blocks.arriving((hash, number), data.clone());
        if !matches!(self.keeping, Keeping::Reserved(_)) {
            fetcher.blocks.keep((hash, number), data.clone());
        }
        fetcher.demands.hand_over(hash, number, &data);
        let (store, blocks, spare) = (fetcher.store.clone(), fetcher.blocks.clone(), data.clone());
        // Where it goes, and the room for it that is only its own.
        let room = match &self.keeping {
            Keeping::Reserved(reservation) => ready(Ok(Some((reservation.tier(), None)))).boxed(),
            Keeping::IfWorth { over_quota } => {
                let (manifest, over_quota) = (self.source.manifest.clone(), *over_quota);
                let admitted = fetcher.room.admit(Visitor { hash, manifest, file, bytes, over_quota });
                admitted.map_ok(|room| room.map(|room| (room.tier(), Some(room)))).boxed()
            }
            Keeping::Never => ready(Ok(None)).boxed(),
        };
        self.writes.push(Box::pin(async move {
            let kept = async {
                let (tier, _room) = match room.await {
                    Ok(Some(place)) => place,
                    Ok(None) => return Ok(false),
                    // Whoever waited has it.
                    Err(error) => {
                        tracing::warn!("a reader's block is not kept: {error}");
                        return Ok(false);
                    }
                };
                let written = store.write_block(tier, &hash, file, index, data).await;
                // Who reads next finds it there at least.
                let written = written.inspect_err(|_| blocks.keep((hash, number), spare));
                Ok(written.map(|()| true)?)
            };
            let result = kept.await;
            drop((arriving, memory));
            Written { number, bytes, result }
        }));
        self.next += 1;
    }

    /// Waits for memory for a block, and lets writes go on meanwhile: they free it.
    async fn memory(&mut self, number: BlockNumber) -> Result<OwnedSemaphorePermit, FillError> {
        let range = self.bytes(number);
        let wanted = u32::try_from(pages(range.end - range.start)).unwrap_or(u32::MAX);
        let buffer = self.fetcher.buffer.clone();
        let mut permit = std::pin::pin!(buffer.acquire_many_owned(wanted));
        loop {
            tokio::select! {
                permit = &mut permit => return permit.map_err(|_| StoreError::Closed.into()),
                Some(written) = self.writes.next(), if !self.writes.is_empty() => self.written(written)?,
            }
        }
    }

    fn written(&mut self, written: Written) -> Result<(), FillError> {
        let Written { number, bytes, result } = written;
        if let Keeping::Reserved(reservation) = &mut self.keeping {
            // Now it is held, or it is not: either way it is no longer to come.
            reservation.release(bytes);
        }
        match result {
            Ok(true) => {
                self.fetched.done.insert(number);
                self.fetched.bytes += bytes;
            }
            Ok(false) => {
                self.fetched.through += bytes;
                self.fetcher.metrics.read_through_bytes.inc_by(bytes);
            }
            // Whoever waits for the next block need not wait for the disk.
            Err(error) if self.urgency == Urgency::Reader => {
                self.fetched.error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn bytes(&self, number: BlockNumber) -> Range<u64> {
        byte_range(self.file.size, u64::from(number - self.file.first_block))
    }

    fn broken(&self, key: &str) -> OriginError {
        OriginError::Unavailable(format!(
            "{key} broke off before block {} was whole",
            self.next - self.file.first_block
        ))
    }
}

fn bytes_of(file: &File<'_>, run: &Run) -> u64 {
    let indices = run.indices();
    byte_range(file.size, u64::from(indices.end - 1)).end
        - byte_range(file.size, u64::from(indices.start)).start
}

/// One block's bytes as they come in chunks.
struct Assembly {
    length: usize,
    bytes: BytesMut,
}

impl Assembly {
    fn new(range: &Range<u64>) -> Self {
        // A block's length fits: it is at most the block size.
        Self { length: (range.end - range.start) as usize, bytes: BytesMut::new() }
    }

    /// Takes from `chunk` what belongs to the block; the block when it is whole.
    fn add(&mut self, chunk: &mut Bytes) -> Option<Bytes> {
        let wanted = self.length - self.bytes.len();
        if self.bytes.is_empty() && chunk.len() >= wanted {
            return Some(chunk.split_to(wanted));
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(self.length);
        }
        let taken = chunk.split_to(wanted.min(chunk.len()));
        self.bytes.extend_from_slice(&taken);
        (self.bytes.len() == self.length).then(|| std::mem::take(&mut self.bytes).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_become_blocks(content in prop::collection::vec(any::<u8>(), 1..300), cuts in prop::collection::vec(1usize..50, 1..300), block in 1u64..70) {
            let mut blocks = Vec::new();
            let lengths: Vec<u64> = (0..content.len() as u64).step_by(block as usize).map(|at| block.min(content.len() as u64 - at)).collect();
            let mut lengths = lengths.into_iter();
            let mut assembly = Assembly::new(&(0..lengths.next().unwrap()));
            let mut rest = content.as_slice();
            for cut in cuts.into_iter().cycle() {
                let (chunk, behind) = rest.split_at(cut.min(rest.len()));
                rest = behind;
                let mut chunk = Bytes::copy_from_slice(chunk);
                while !chunk.is_empty() {
                    if let Some(whole) = assembly.add(&mut chunk) {
                        blocks.push(whole);
                        assembly = Assembly::new(&(0..lengths.next().unwrap_or(0)));
                    }
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(blocks[..blocks.len() - 1].iter().all(|whole| whole.len() as u64 == block));
            prop_assert_eq!(blocks.concat(), content);
        }
    }
}
