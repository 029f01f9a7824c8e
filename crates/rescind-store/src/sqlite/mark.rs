//! The mark, a file beside the database, by which an older copy of the store is recognised.
//!
//! Every commit writes a count into the database (`user_version`), and the number of the opening under which it was
//! made (`application_id`). Both are in the file's first page, and so in every whole part of the log. The mark holds
//! the last commit that was answered, and the log that contains it:
//!
//! - After each commit, before its answer, the mark is written and not flushed. It is never ahead of the disk, so a
//!   power cut does not make it wrong, and after a kill it is exact. If the mark cannot be written, the commit is
//!   answered all the same, because it is on the disk. The next commit must write the mark first.
//! - The first commit in a new log is answered only after a flush of the mark. So even after a power cut the mark
//!   tells that the file needs a log, and which one.
//! - Before SQLite removes a log that was copied into the file, the mark records that the file is complete.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rescind_base::{
    files::{circumstances::circumstances, data_folder::TEMPORARY, folder_of},
    random::Random,
};
use rusqlite::Connection;
use tempfile::NamedTempFile;

/// The size of a log's header. The salts of a new log are random; when SQLite starts it anew, it adds 1 to the first.
const LOG_HEADER: usize = 32;
const LOG_SALTS: u64 = 16;
const LOG_MAGIC: [[u8; 4]; 2] = [[0x37, 0x7f, 0x06, 0x82], [0x37, 0x7f, 0x06, 0x83]];
/// Offsets of `user_version` and `application_id` in the database's file.
const FILE_COUNT: u64 = 60;
const FILE_OPENING: u64 = 68;

/// Why the store is not the one last written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WentBack {
    /// The mark is missing.
    Unmarked,
    /// The mark is not one that this program writes.
    Unreadable,
    /// The log is missing, or another one is in its place.
    Log,
    /// The file is older, or from another store.
    File,
}

impl fmt::Display for WentBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WentBack::Unmarked => "rescind.mark, which tells the store from an older one, is missing",
            WentBack::Unreadable => "rescind.mark, which tells the store from an older one, cannot be read",
            WentBack::Log => {
                "rescind.db-wal, with the last changes of rescind.db, is missing or another one's"
            }
            WentBack::File => {
                "rescind.db, or its log, is older than what was last written here, or from elsewhere"
            }
        })
    }
}

/// The identity of a commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The random number of the opening under which the commit was made. 0 in stores without a mark.
    opening: u32,
    /// Raised by 1 at each commit. After the highest number comes 0.
    count: u32,
}

impl Stamp {
    /// Reads the stamp of the database's last commit.
    pub(super) fn read(db: &Connection) -> rusqlite::Result<Stamp> {
        let number = |name| db.pragma_query_value(None, name, |row| row.get(0)).map(i32::cast_unsigned);
        Ok(Stamp { opening: number("application_id")?, count: number("user_version")? })
    }

    /// Writes the stamp into the database, instead of the one before.
    pub(super) fn write(self, before: Stamp, db: &Connection) -> rusqlite::Result<()> {
        if self.opening != before.opening {
            db.pragma_update(None, "application_id", self.opening.cast_signed())?;
        }
        db.pragma_update(None, "user_version", self.count.cast_signed())
    }

    fn is_not_before(self, other: Stamp) -> bool {
        self.count.wrapping_sub(other.count) <= u32::MAX / 2
    }
}

/// The identity of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Salts(u32, u32);

impl Salts {
    /// Returns whether the log is `other`, or `other` started anew.
    fn follows(self, other: Salts) -> bool {
        self == other || self.0 == other.0.wrapping_add(1)
    }
}

/// The content of the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// The opening that may write.
    opening: u32,
    /// The last commit that was answered.
    newest: Stamp,
    /// The last commit that the database's file had without its log.
    file: Stamp,
    /// The log that has the later commits. `None`: the file has all commits.
    log: Option<Salts>,
}

impl Mark {
    /// Returns the mark's text. All texts have the same length, within one sector of a disk.
    fn text(&self) -> String {
        let Mark { opening, newest, file, log } = self;
        let stamp = |stamp: &Stamp| format!("{:08x}:{:08x}", stamp.opening, stamp.count);
        let log = log.map_or("-".repeat(17), |Salts(one, two)| format!("{one:08x}:{two:08x}"));
        format!("rescind 1 opening {opening:08x} newest {} file {} log {log}\n", stamp(newest), stamp(file))
    }

    fn parse(text: &str) -> Option<Mark> {
        let mut words = text.split_whitespace();
        let mut after = |name: &str| (words.next()? == name).then(|| words.next()).flatten();
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let pair = |text: &str| {
            let (one, two) = text.split_once(':')?;
            Some((number(one)?, number(two)?))
        };
        let stamp = |text| pair(text).map(|(opening, count)| Stamp { opening, count });
        after("rescind").filter(|version| *version == "1")?;
        let mark = Mark {
            opening: number(after("opening")?)?,
            newest: stamp(after("newest")?)?,
            file: stamp(after("file")?)?,
            log: pair(after("log")?).map(|(one, two)| Salts(one, two)),
        };
        (mark.text() == text).then_some(mark)
    }

    /// Checks that the store has all commits that were answered, and at most those that may have followed.
    fn judge(&self, found: &Found, newest: Stamp) -> Result<(), WentBack> {
        if let Some(log) = self.log
            && !found.log.is_some_and(|found| found.follows(log))
        {
            return Err(WentBack::Log);
        }
        let knows = |stamp: Stamp, from: Stamp, others: &[u32]| {
            stamp.is_not_before(from) && (stamp.opening == from.opening || others.contains(&stamp.opening))
        };
        // While the log is being copied into it, the file may be at any commit of the log.
        let file = knows(found.file, self.file, &[self.newest.opening, self.opening]);
        if file && knows(newest, self.newest, &[self.opening]) { Ok(()) } else { Err(WentBack::File) }
    }
}

/// The files as they are before the database is opened.
#[derive(Debug)]
pub(super) struct Found {
    /// The database's file is empty.
    is_new: bool,
    mark: Option<String>,
    file: Stamp,
    log: Option<Salts>,
}

impl Found {
    /// Reads the files. SQLite must not have `file` open yet: closing it would end SQLite's locks.
    pub(super) fn look(path: &Path, file: &File) -> io::Result<Found> {
        let length = file.metadata()?.len();
        let word = |at| {
            let mut word = [0; 4];
            if length >= at + 4 {
                file.read_exact_at(&mut word, at)?;
            }
            Ok::<_, io::Error>(u32::from_be_bytes(word))
        };
        let log = if_there(File::open(log_of(path)))?.as_ref().map_or(Ok(None), salts)?;
        let mark = if_there(fs::read(mark_of(path)))?;
        let mark = mark.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let file = Stamp { opening: word(FILE_OPENING)?, count: word(FILE_COUNT)? };
        Ok(Found { is_new: length == 0, mark, file, log })
    }

    /// Checks that the store is the one last written here. `newest` is the last commit in file and log.
    fn judge(&self, newest: Stamp) -> Result<(), WentBack> {
        match &self.mark {
            _ if self.is_new => Ok(()),
            // A store of a version that wrote no mark.
            None if newest == Stamp::default() => Ok(()),
            None => Err(WentBack::Unmarked),
            Some(text) => Mark::parse(text).ok_or(WentBack::Unreadable)?.judge(self, newest),
        }
    }
}

/// The mark of an open store.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    /// The last commit.
    current: Stamp,
    mark: Mark,
    /// Why the store is not the one last written here. The mark then stays as it was found.
    went_back: Option<WentBack>,
    file: Option<File>,
    log: Option<File>,
    /// The log in the mark that was flushed last. `None`: the mark needs a flush.
    flushed: Option<Option<Salts>>,
}

impl Marker {
    /// Returns the mark of a database with this newest commit. Marks the store as open if it is the one last written
    /// here.
    pub(super) fn open(path: &Path, found: Found, newest: Stamp, random: &Random) -> io::Result<Marker> {
        // Never 0, which stands for stores without a mark.
        let opening = u32::from_be_bytes(*random.bytes()) | 1;
        let went_back = found.judge(newest).err();
        let mut marker = Marker {
            path: path.to_owned(),
            current: newest,
            mark: Mark { opening, newest, file: found.file, log: None },
            went_back,
            file: None,
            log: None,
            flushed: None,
        };
        if went_back.is_none() {
            marker.confirm()?;
        }
        Ok(marker)
    }

    /// Returns what an operator must know of an error at the mark.
    pub(super) fn circumstances(&self, error: &io::Error) -> String {
        circumstances(&mark_of(&self.path), error)
    }

    pub(super) fn went_back(&self) -> Option<WentBack> {
        self.went_back
    }

    /// Marks the store, as it is now, as the one last written here.
    pub(super) fn confirm(&mut self) -> io::Result<()> {
        (self.mark.newest, self.mark.log) = (self.current, self.salts()?);
        let path = mark_of(&self.path);
        let text = self.mark.text();
        let file = match if_there(OpenOptions::new().write(true).open(&path))? {
            Some(file) => {
                file.set_len(text.len() as u64)?;
                file
            }
            None => {
                let mut file = NamedTempFile::with_prefix_in(TEMPORARY, folder_of(&self.path))?;
                file.write_all(text.as_bytes())?;
                file.as_file().sync_all()?;
                file.persist(&path)?
            }
        };
        self.file = Some(file);
        self.flush()?;
        self.went_back = None;
        Ok(())
    }

    /// Returns the stamps of the last commit and of the next.
    pub(super) fn next(&self) -> (Stamp, Stamp) {
        let Marker { current, mark: Mark { opening, .. }, .. } = *self;
        (current, Stamp { opening, count: current.count.wrapping_add(1) })
    }

    /// Records that this commit is on the disk. The commit may be answered only after that.
    pub(super) fn committed(&mut self, stamp: Stamp) -> io::Result<()> {
        self.current = stamp;
        if self.went_back.is_some() {
            return Ok(());
        }
        let log = self.salts()?;
        if log != self.mark.log {
            // SQLite starts a log anew only when the file has all commits before.
            (self.mark.file, self.mark.log) = (self.mark.newest, log);
        }
        self.mark.newest = stamp;
        if self.flushed != Some(log) {
            return self.flush();
        }
        self.write().inspect_err(|_| self.flushed = None)
    }

    /// Writes the mark, if that failed after the last commit.
    pub(super) fn catch_up(&mut self) -> io::Result<()> {
        if self.went_back.is_none() && self.flushed.is_none() { self.flush() } else { Ok(()) }
    }

    /// Records that the log was copied into the file. The log is written no more.
    pub(super) fn closed(&mut self) -> io::Result<()> {
        self.mark = Mark { newest: self.current, file: self.current, log: None, ..self.mark };
        self.flush()
    }

    fn write(&self) -> io::Result<()> {
        match &self.file {
            Some(file) => file.write_all_at(self.mark.text().as_bytes(), 0),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = None;
        self.write()?;
        if let Some(file) = &self.file {
            file.sync_all()?;
        }
        // Flushes the names of the mark and of a new log.
        File::open(folder_of(&self.path))?.sync_all()?;
        self.flushed = Some(self.mark.log);
        Ok(())
    }

    /// Reads the salts of the log, which stays the same file while the store is open.
    fn salts(&mut self) -> io::Result<Option<Salts>> {
        if self.log.is_none() {
            self.log = if_there(File::open(log_of(&self.path)))?;
        }
        self.log.as_ref().map_or(Ok(None), salts)
    }
}

/// `None`: there is no such file.
fn if_there<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn salts(log: &File) -> io::Result<Option<Salts>> {
    let mut header = [0; LOG_HEADER];
    match log.read_exact_at(&mut header, 0) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if !LOG_MAGIC.iter().any(|magic| header.starts_with(magic)) {
        return Ok(None);
    }
    let mut words = [[0; 4]; 2];
    for (word, bytes) in words.iter_mut().zip(header[LOG_SALTS as usize..].chunks(4)) {
        word.copy_from_slice(bytes);
    }
    Ok(Some(Salts(u32::from_be_bytes(words[0]), u32::from_be_bytes(words[1]))))
}

pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

pub(super) fn mark_of(path: &Path) -> PathBuf {
    path.with_extension("mark")
}

#[cfg(test)]
impl Marker {
    /// Makes the mark unwritable, or writable again.
    pub(super) fn set_writable(&mut self, writable: bool) {
        self.file = OpenOptions::new().read(true).write(writable).open(mark_of(&self.path)).ok();
    }
}

#[cfg(test)]
mod tests;
