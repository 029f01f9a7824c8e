//! Reads the log that `shim.c` writes.

/// The number of a file or folder. The file system may later give it to another one.
pub(crate) type Inode = u64;

/// One operation. The log has all operations in their order.
#[derive(Debug)]
pub(crate) enum Event {
    Write {
        file: Inode,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: Inode,
        size: usize,
    },
    /// A flush of a file or folder that succeeded.
    Flushed(Inode),
    /// A flush that failed.
    NotFlushed(Inode),
    /// An empty file.
    Empty(Inode),
    /// The names in a folder, after a change.
    Names {
        folder: Inode,
        entries: Vec<Entry>,
    },
    /// The beginning of the bytes that a caller is sent.
    Sent(Vec<u8>),
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) inode: Inode,
    pub(crate) is_folder: bool,
    pub(crate) is_file: bool,
}

const HEADER: usize = 24;
const DT_DIR: u8 = 4;
const DT_REG: u8 = 8;

/// Reads a whole log.
pub(crate) fn read(mut log: &[u8]) -> Vec<Event> {
    let mut events = vec![];
    while let Some((header, rest)) = log.split_at_checked(HEADER) {
        let u32 = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let u64 = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
        let (bytes, rest) = rest.split_at(usize::try_from(u32(4)).unwrap());
        let (inode, at) = (u64(8), usize::try_from(u64(16)).unwrap());
        events.push(match char::from_u32(u32(0)).unwrap() {
            'W' => Event::Write { file: inode, at, bytes: bytes.to_vec() },
            'T' => Event::Truncate { file: inode, size: at },
            'S' => Event::Flushed(inode),
            'F' => Event::NotFlushed(inode),
            'N' => Event::Empty(inode),
            'D' => Event::Names { folder: inode, entries: entries(bytes) },
            'A' => Event::Sent(bytes.to_vec()),
            other => panic!("unknown event {other:?}"),
        });
        log = rest;
    }
    assert!(log.is_empty(), "the log ends in the middle of an event");
    events
}

fn entries(text: &[u8]) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let inode = parts.next().unwrap().parse().unwrap();
        let kind: u8 = parts.next().unwrap().parse().unwrap();
        let name = parts.next().unwrap().to_owned();
        Entry { name, inode, is_folder: kind == DT_DIR, is_file: kind == DT_REG }
    };
    std::str::from_utf8(text).unwrap().lines().map(entry).collect()
}
