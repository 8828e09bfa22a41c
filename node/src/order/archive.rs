//! A log as a file: the newest snapshot for which a quorum vouches, and all blocks behind it with what they order. Who
//! has the genesis can check all of it, and nothing that was ordered before the file was made is missing from it.
//!
//! ```text
//! file   = frame*            frame = length (4 bytes, big endian), CBOR of a [`Frame`]
//! frames = Head, Piece*, (Batch*, Blocks)*, End
//! ```

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_order::limits::{BATCHES_MAX, MESSAGE_BYTES_MAX};
use wattle_order::payloads::Batch;
use wattle_order::{
    BlockId, Certified, ChainEnd, ChainId, Checked, Checker, Digest, Genesis, Height, Payload, Proposal,
    Rejected, Seen, piece_digest,
};
use wattle_types::{UnixTime, cbor};
use wattle_weave::order::ANSWER_BLOCKS_MAX;

use super::disk::{Disk, DiskError, Stretch};
use super::epochs::Epochs;
use super::snapshots::CompactError;
use super::{Log, Order};

/// Batches before the blocks that order them.
const AHEAD_MAX: usize = (ANSWER_BLOCKS_MAX + 1) * BATCHES_MAX;
/// Bytes of one frame: a message, and what names it.
const FRAME_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// What files are called that nobody named.
const EXTENSION: &str = "snapshot";
/// How often a file is begun again.
const ATTEMPTS: usize = 3;

/// The format, so that a reader of another one says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Format {
    #[serde(rename = "wattle order archive v1")]
    V1,
}

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) format: Format,
    pub(super) genesis: Genesis,
    /// The snapshot on which its blocks stand; none where that is the beginning of the log.
    pub(super) certified: Option<Certified>,
    /// The height of its last block.
    pub(super) height: Height,
    /// The time of it.
    pub(super) time: UnixTime,
}

impl Head {
    /// The height on which its blocks stand.
    pub(super) fn base(&self) -> Height {
        self.certified.as_ref().map_or(Height(0), |certified| certified.manifest.base.height())
    }
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame {
    Head(Box<Head>),
    /// A piece of the snapshot's state, in the order of its manifest.
    Piece(ByteBuf),
    /// A batch that the next blocks order.
    Batch(ByteBuf),
    /// Blocks, each the parent of the next, and what proves the last.
    Blocks {
        blocks: Vec<Proposal>,
        end: Box<ChainEnd>,
    },
    /// All of it was there.
    End,
}

/// Why a file is no log that holds. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum BadArchive {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It ends before its end.
    #[error("it is cut off: copy it again")]
    CutOff,
    /// It is no such file, or was changed.
    #[error("not a snapshot of a log: {0}")]
    Malformed(String),
    /// What is in it does not verify.
    #[error("it proves nothing: {0}")]
    Rejected(#[from] Rejected),
}

/// Why a file was not written. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log's disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file's.
    #[error("{0}")]
    File(#[from] io::Error),
}

fn malformed(why: impl Into<String>) -> BadArchive {
    BadArchive::Malformed(why.into())
}

/// Reads a file frame by frame.
pub(super) struct Frames(BufReader<File>);

impl Frames {
    pub(super) fn open(path: &Path) -> Result<Self, BadArchive> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(malformed("it is no file"));
        }
        Ok(Self(BufReader::new(file)))
    }

    pub(super) fn head(&mut self) -> Result<Head, BadArchive> {
        match self.next() {
            Ok(Frame::Head(head)) => Ok(*head),
            Ok(_) => Err(malformed("it does not begin with what it is")),
            Err(error) => Err(error),
        }
    }

    pub(super) fn next(&mut self) -> Result<Frame, BadArchive> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(malformed("a part of it is longer than any"));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        cbor::decode(&bytes, FRAME_BYTES_MAX).map_err(|error| malformed(error.to_string()))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BadArchive> {
        self.0.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BadArchive::CutOff,
            _ => BadArchive::Unreadable(error),
        })
    }

    fn is_over(&mut self) -> Result<bool, BadArchive> {
        Ok(self.0.read(&mut [0])? == 0)
    }
}

/// Checks a file from its beginning to its end.
pub(super) fn check(path: &Path) -> Result<Head, BadArchive> {
    let mut frames = Frames::open(path)?;
    let head = frames.head()?;
    let mut epochs = Epochs::genesis(&head.genesis);
    let mut stands: Stands = match &head.certified {
        Some(certified) => {
            certified.check(epochs.first(), &mut Seen::new())?;
            epochs = epochs.and(certified.epochs.clone())?;
            let tip = certified.manifest.base.root.tip();
            for piece in &certified.manifest.pieces {
                match frames.next()? {
                    Frame::Piece(bytes) if piece_digest(&bytes) == *piece => {}
                    _ => return Err(malformed("a piece of the state is another")),
                }
            }
            (tip.height, tip.id, tip.time)
        }
        None => (Height(0), epochs.first().anchor().block, head.genesis.created),
    };
    let mut committee = Arc::clone(epochs.current());
    let (mut seen, mut batches) = (Seen::new(), BTreeSet::new());
    loop {
        match frames.next()? {
            Frame::Batch(bytes) if batches.len() < AHEAD_MAX => {
                let batch =
                    Batch::decode(&bytes).map_err(|_damaged| malformed("a batch of entries is none"))?;
                batches.insert(batch.digest());
            }
            Frame::Blocks { blocks, end } => {
                let checker = Checker::new(Arc::clone(&committee));
                let blocks = checker.check_chain(&mut seen, blocks, &end)?;
                if let ChainEnd::Epoch(proof) = &*end {
                    committee = Arc::new(proof.check(&committee, &mut seen)?);
                }
                stands = follows(stands, &blocks, &mut batches, head.height)?;
            }
            Frame::End if (stands.0, stands.2) == (head.height, head.time) && frames.is_over()? => {
                return Ok(head);
            }
            Frame::End => return Err(malformed("it has not all blocks, or something behind its end")),
            Frame::Head(_) | Frame::Piece(_) | Frame::Batch(_) => {
                return Err(malformed("something stands where it does not belong"));
            }
        }
    }
}

/// The block on which the next ones stand, and its time.
type Stands = (Height, BlockId, UnixTime);

/// Where the next blocks stand.
fn follows(
    mut stands: Stands,
    blocks: &[Checked<Proposal>],
    batches: &mut BTreeSet<Digest>,
    last: Height,
) -> Result<Stands, BadArchive> {
    if blocks.first().is_some_and(|first| first.header().parent != stands.1) {
        return Err(malformed("a block does not stand on the one before"));
    }
    for block in blocks {
        let header = block.header();
        let here = |part: &wattle_order::BatchRef| batches.contains(&part.batch);
        if let Payload::Batches(parts) = &block.block.payload
            && header.height <= last
            && !parts.iter().all(here)
        {
            return Err(malformed("entries of a block are missing"));
        }
        // What proves the last one comes with it, and again where more follow; so does what was ordered meanwhile.
        if header.height <= last {
            stands = (header.height, block.id(), header.time);
        }
    }
    batches.clear();
    Ok(stands)
}

struct Sink(BufWriter<File>);

impl Sink {
    fn put(&mut self, frame: &Frame) -> io::Result<()> {
        let bytes = cbor::encode(frame);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.0.write_all(&length.to_be_bytes())?;
        self.0.write_all(&bytes)
    }
}

/// Writes a log into a file: beside it first, so that a file that is there is whole.
pub(super) fn write(disk: &Disk, path: &Path) -> Result<Head, ArchiveError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = write_to(disk, &beside);
    if written.is_err() {
        // Ignored because why it failed says more.
        std::fs::remove_file(&beside).unwrap_or_default();
        return written;
    }
    std::fs::rename(&beside, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    written
}

fn write_to(disk: &Disk, path: &Path) -> Result<Head, ArchiveError> {
    let damaged = DiskError::Damaged { what: "snapshot" };
    let genesis = disk.genesis()?.ok_or(damaged.clone())?;
    let (certified, told) = (disk.certified()?, disk.told()?);
    let time = disk.block(told.height)?.map(|block| block.header().time);
    let of_base = certified.as_ref().map(|certified| certified.manifest.base.root.tip().time);
    let time = time.or(of_base).unwrap_or(genesis.created);
    let head = Head { format: Format::V1, genesis, certified, height: told.height, time };
    // What is in the log is for those who are in it.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut out = Sink(BufWriter::new(file));
    out.put(&Frame::Head(Box::new(head.clone())))?;
    for piece in head.certified.iter().flat_map(|certified| &certified.manifest.pieces) {
        let bytes = disk.piece(piece)?.ok_or(damaged.clone())?;
        out.put(&Frame::Piece(ByteBuf::from(bytes)))?;
    }
    let mut above = head.base();
    while above < head.height {
        let Stretch { blocks, end, .. } = disk.stretch(above)?;
        let (Some(end), Some(last)) = (end, blocks.last()) else { return Err(damaged.into()) };
        let last = last.header().height;
        for block in &blocks {
            let Payload::Batches(parts) = &block.block.payload else { continue };
            for part in parts {
                match disk.batch(&part.batch)? {
                    Some(batch) => out.put(&Frame::Batch(ByteBuf::from(batch.encode())))?,
                    None if block.header().height > head.height => {}
                    None => return Err(damaged.into()),
                }
            }
        }
        out.put(&Frame::Blocks { blocks, end })?;
        above = last;
    }
    out.put(&Frame::End)?;
    let file = out.0.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(head)
}

/// A log in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Where.
    pub file: PathBuf,
    /// How large it is.
    pub bytes: u64,
    /// The log.
    pub chain: ChainId,
    /// The height of its last block.
    pub height: Height,
    /// The height of the snapshot in it; 0 where it has every block.
    pub base: Height,
    /// The time of its last block.
    pub time: UnixTime,
}

impl Archived {
    fn new(file: &Path, head: &Head) -> io::Result<Self> {
        let bytes = std::fs::metadata(file)?.len();
        let Head { genesis, height, time, .. } = head;
        let (file, chain) = (file.to_path_buf(), genesis.chain());
        Ok(Self { file, bytes, chain, height: *height, base: head.base(), time: *time })
    }
}

/// Files in a directory that are called like one, and what each has, the newest last; or why it has nothing.
///
/// # Errors
/// The directory's; one that is absent has none.
pub fn archives(dir: &Path) -> io::Result<Vec<(PathBuf, Result<Archived, BadArchive>)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            let head = Frames::open(&path).and_then(|mut frames| frames.head());
            let archived = head.and_then(|head| Ok(Archived::new(&path, &head)?));
            found.push((path, archived));
        }
    }
    found.sort_by_key(|(path, archived)| {
        (archived.as_ref().map(|archived| archived.height).ok(), path.clone())
    });
    Ok(found)
}

impl Order {
    /// Writes the log into a file; without a path into one of its own in a directory.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn archive(&self, log: &Log, to: FileOrDir) -> Result<Archived, ArchiveError> {
        let _alone = self.start.changes.lock().await;
        let (disk, chain) = (log.disk.clone(), log.chain().to_string());
        let writing = move || {
            let file = match to {
                FileOrDir::File(file) => file,
                FileOrDir::Dir(dir) => {
                    std::fs::create_dir_all(&dir)?;
                    let (height, chain) = (disk.told()?.height, chain.get(..8).unwrap_or_default());
                    dir.join(format!("{chain}-{height:08}.{EXTENSION}", height = height.0))
                }
            };
            let mut written = write(&disk, &file);
            // A newer snapshot may take the place of the one that is being read.
            for _ in 1..ATTEMPTS {
                if matches!(&written, Err(ArchiveError::Disk(DiskError::Damaged { .. }))) {
                    written = write(&disk, &file);
                }
            }
            Ok(Archived::new(&file, &written?)?)
        };
        match tokio::task::spawn_blocking(writing).await {
            Ok(written) => written,
            Err(stopped) => Err(io::Error::other(stopped).into()),
        }
    }

    /// Removes the blocks that nobody needs who has the newest snapshot; how many, and where the log begins then.
    ///
    /// # Errors
    /// [`CompactError`].
    pub async fn compact(&self, log: &Log) -> Result<(u64, Height), CompactError> {
        let _alone = self.start.changes.lock().await;
        // What the machine is being told of again has to stay.
        let upto = log.read(Disk::may_compact).await?.min(*log.told.borrow());
        let removed = log.disk.compact(upto).await?;
        Ok((removed, log.first().await?))
    }
}

/// Where to write.
#[derive(Clone, Debug)]
pub enum FileOrDir {
    /// Into this file.
    File(PathBuf),
    /// Into one of its own in this directory, which is made if it is not there.
    Dir(PathBuf),
}
