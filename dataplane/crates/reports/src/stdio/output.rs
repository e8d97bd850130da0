//! Where lines go. A file is opened when the first are written, and again after an error: it may have been moved away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meshwright_api::meshwright::policy::v1::handler::Stdio as Parameters;
use meshwright_api::meshwright::policy::v1::handler::stdio::Stream;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::line::date;

/// Who reads standard output must take what there is within this time.
const READER: Duration = Duration::from_secs(5);
/// A pipe that is ready takes so much without waiting (POSIX' PIPE_BUF on Linux).
const PIPE: usize = 4096;
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub(super) struct Output {
    stream: Stream,
    path: PathBuf,
    /// Zero: no limit.
    rotate_bytes: u64,
    rotate_after: Duration,
    keep: usize,
    file: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    since: SystemTime,
}

impl Output {
    pub(super) fn new(parameters: &Parameters) -> Self {
        Output {
            stream: parameters.stream(),
            path: PathBuf::from(&parameters.path),
            rotate_bytes: parameters.rotate_bytes,
            rotate_after: DAY * parameters.rotate_days,
            keep: parameters.keep_files as usize,
            file: None,
        }
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self.stream {
            Stream::Stdout => write_to(io::stdout().lock().as_fd(), lines),
            Stream::Stderr => write_to(io::stderr().lock().as_fd(), lines),
            Stream::File | Stream::RotatedFile => {
                let written = self.append(lines);
                if written.is_err() {
                    self.file = None;
                }
                written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
            }
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let rotates = self.stream == Stream::RotatedFile;
        if rotates
            && self
                .file
                .as_ref()
                .is_some_and(|open| self.is_due(open, lines.len() as u64))
        {
            self.file = None;
            self.rotate()?;
        }
        let open = match &mut self.file {
            // A file that somebody renamed or removed is left to them.
            Some(open) if is_at(&open.file, &self.path) => open,
            other => other.insert(Open::new(&self.path)?),
        };
        open.append(lines)
    }

    fn is_due(&self, open: &Open, more: u64) -> bool {
        let is_large = self.rotate_bytes > 0 && open.size > 0 && open.size + more > self.rotate_bytes;
        let is_old = !self.rotate_after.is_zero() && open.since.elapsed().is_ok_and(|age| age >= self.rotate_after);
        is_large || is_old
    }

    /// Renames the file with the time and removes the oldest that are too many.
    fn rotate(&self) -> io::Result<()> {
        let renamed = self.path.with_file_name(self.rotated_name(SystemTime::now()));
        match fs::rename(&self.path, renamed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if self.keep == 0 {
            return Ok(());
        }
        let (stem, extension) = self.parts();
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        // The time in the names makes their order that of time.
        let mut rotated: Vec<PathBuf> = fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let time = name
                    .strip_prefix(&format!("{stem}-"))
                    .and_then(|rest| rest.strip_suffix(&extension));
                time.is_some_and(|time| time.len() == TIME.len() && time.as_bytes()[10] == b'T')
            })
            .collect();
        rotated.sort();
        let surplus = rotated.len().saturating_sub(self.keep);
        rotated.iter().take(surplus).try_for_each(fs::remove_file)
    }

    fn rotated_name(&self, now: SystemTime) -> String {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs() as i64;
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let (stem, extension) = self.parts();
        let nanos = since.subsec_nanos();
        format!("{stem}-{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{nanos:09}{extension}")
    }

    /// The file's name before and from its last dot.
    fn parts(&self) -> (String, String) {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.rfind('.').filter(|dot| *dot > 0) {
            Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
            None => (name.to_owned(), String::new()),
        }
    }
}

/// How long the time in a rotated file's name is.
const TIME: &str = "2026-11-21T20-00-00.000000000";

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        // A link at the end of the path could lead a policy's author anywhere.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no file"));
        }
        let since = match metadata.len() {
            0 => SystemTime::now(),
            _ => metadata.created().or(metadata.modified())?,
        };
        Ok(Open {
            file,
            size: metadata.len(),
            since,
        })
    }

    /// Returns when the lines would survive a power cut.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.size += lines.len() as u64,
            // Half of a batch would stay before the whole that comes again.
            Err(_) => self.file.set_len(self.size)?,
        }
        written
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = || {
        let (open, found) = (file.metadata()?, fs::symlink_metadata(path)?);
        Ok::<_, io::Error>((open.dev(), open.ino()) == (found.dev(), found.ino()))
    };
    same().unwrap_or(false)
}

/// Writes to whoever reads; who doesn't read for a while is an error, not a thread that hangs.
fn write_to(reader: BorrowedFd<'_>, mut lines: &[u8]) -> io::Result<()> {
    let until = Instant::now() + READER;
    while !lines.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let mut wanted = [PollFd::new(reader, PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut wanted, timeout) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads what is written")),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match nix::unistd::write(reader, &lines[..lines.len().min(PIPE)]) {
            Ok(count) => lines = &lines[count..],
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
