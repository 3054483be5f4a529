//! Brings lines to a file or to standard output off the request's way.
//!
//! Decides what happens when the reader of the lines is slow (they are dropped and counted, requests never wait), when the disk is
//! full (counted, said once, tried again) and when the file was rotated. Does not know what a line says.
//!
//! A request pays for one short lock and a copy into a shared buffer; a thread takes the whole buffer a few milliseconds
//! later, so that there is one system call for hundreds of lines and none on the request's thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How many bytes may wait to be written, unless told otherwise.
pub const ROOM: usize = 8 * 1024 * 1024;
/// How long the writer gathers lines after the first one has woken it.
const GATHER: Duration = Duration::from_millis(5);
/// How long it waits after a write that failed; in between, lines gather in the buffer.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// A buffer that grew beyond this is given back to the allocator after it was written.
const KEEP: usize = 1024 * 1024;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Stdout,
    /// Appended to; made with mode 0640 where it does not exist.
    File(PathBuf),
}

/// An opened [`To`]. Opening is apart from using it, so that a reload that is refused has touched nothing.
#[derive(Debug)]
pub struct Output {
    to: To,
    file: File,
}

/// What became of the lines since this process started. All count upwards only.
#[derive(Debug, Default)]
pub struct Counts {
    /// Lines written.
    pub lines: AtomicU64,
    /// Lines lost: no room in the buffer, or the write failed.
    pub dropped: AtomicU64,
    /// Lines that a sample left out.
    pub left_out: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Writes and reopenings that failed.
    pub errors: AtomicU64,
}

/// Takes lines. Shared by all threads; dropping it lets the writer finish what it has.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    room: usize,
    state: Mutex<State>,
    /// For the writer: there is something to do.
    wake: Condvar,
    /// For those who flush: a turn is over.
    turned: Condvar,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct State {
    buffer: Vec<u8>,
    /// Whether the writer waits without a bound, so that whoever brings a line must wake it.
    is_asleep: bool,
    must_reopen: bool,
    redirect: Option<Output>,
    must_stop: bool,
    /// Turns asked for by `flush`, and turns begun after they were asked for and ended.
    asked: u64,
    done: u64,
}

/// The writing thread's own things.
struct Writer {
    shared: Arc<Shared>,
    output: Output,
    /// The last write ended inside a line; the next begins a new one.
    is_torn: bool,
    is_failing: bool,
}

// === impl Output ===

impl Output {
    /// Opens a file for appending, or takes a duplicate of standard output.
    pub fn open(to: To) -> io::Result<Self> {
        let file = match &to {
            To::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            To::File(path) => open_file(path)?,
        };
        Ok(Output { to, file })
    }

    fn name(&self) -> String {
        match &self.to {
            To::Stdout => "standard output".to_owned(),
            To::File(path) => format!("`{}`", path.display()),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

// === impl Sink ===

impl Sink {
    /// Starts the thread that writes to `output`. At most `room` bytes wait for it.
    pub fn start(output: Output, room: usize) -> io::Result<Self> {
        let sink = Sink::idle(room);
        let writer = Writer { shared: sink.shared.clone(), output, is_torn: false, is_failing: false };
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || writer.run())?;
        Ok(sink)
    }

    fn idle(room: usize) -> Self {
        let state = State {
            buffer: Vec::with_capacity(room),
            is_asleep: false,
            must_reopen: false,
            redirect: None,
            must_stop: false,
            asked: 0,
            done: 0,
        };
        let shared =
            Shared { room, state: Mutex::new(state), wake: Condvar::new(), turned: Condvar::new(), counts: Arc::new(Counts::default()) };
        Sink { shared: Arc::new(shared) }
    }

    /// Takes one line, its newline included. Never waits for the disk, never allocates; drops the line where there is no room.
    pub fn append(&self, line: &[u8]) {
        let mut state = self.shared.state.lock();
        if line.len() > self.shared.room - state.buffer.len() {
            drop(state);
            self.shared.counts.dropped.fetch_add(1, Relaxed);
            return;
        }
        state.buffer.extend_from_slice(line);
        let must_wake = std::mem::take(&mut state.is_asleep);
        drop(state);
        if must_wake {
            self.shared.wake.notify_one();
        }
    }

    /// Notes a line that is not to be written.
    pub fn leave_out(&self) {
        self.shared.counts.left_out.fetch_add(1, Relaxed);
    }

    /// Opens the file anew by its name, after it was renamed by logrotate. Returns at once; nothing for standard output.
    pub fn reopen(&self) {
        self.nudge(|state| state.must_reopen = true);
    }

    /// Lets what comes from now on go elsewhere. What waits to be written may go to either.
    pub fn redirect(&self, output: Output) {
        self.nudge(|state| state.redirect = Some(output));
    }

    /// Waits until everything that was taken before has been written or has failed, but no longer than `limit`. Says whether it has.
    pub fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut turn = 0;
        self.nudge(|state| {
            state.asked += 1;
            turn = state.asked;
        });
        let mut state = self.shared.state.lock();
        while state.done < turn {
            if self.shared.turned.wait_until(&mut state, deadline).timed_out() {
                return state.done >= turn;
            }
        }
        true
    }

    /// What became of the lines, for the metrics.
    pub fn counts(&self) -> Arc<Counts> {
        self.shared.counts.clone()
    }

    fn nudge(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.state.lock();
        change(&mut state);
        state.is_asleep = false;
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.nudge(|state| state.must_stop = true);
    }
}

// === impl State ===

impl State {
    /// Something that does not wait for more lines to gather.
    fn is_urgent(&self) -> bool {
        self.must_stop || self.must_reopen || self.redirect.is_some() || self.done < self.asked
    }
}

// === impl Writer ===

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(self.shared.room);
        loop {
            let turn = self.wait(&mut batch);
            if let Some(output) = turn.redirect {
                self.output = output;
                self.is_torn = false;
            }
            if turn.must_reopen {
                self.reopen();
            }
            self.write(&batch);
            batch.clear();
            if batch.capacity() > 0 && turn.size > KEEP {
                batch = Vec::with_capacity(self.shared.room);
            }
            let mut state = self.shared.state.lock();
            state.done = state.done.max(turn.asked);
            drop(state);
            self.shared.turned.notify_all();
            if turn.must_stop {
                return;
            }
        }
    }

    /// Waits until there is something to do, and a little longer so that one write serves many lines. Swaps the buffers.
    fn wait(&self, batch: &mut Vec<u8>) -> Turn {
        let mut state = self.shared.state.lock();
        while state.buffer.is_empty() && !state.is_urgent() {
            state.is_asleep = true;
            self.shared.wake.wait(&mut state);
        }
        state.is_asleep = false;
        let until = Instant::now() + if self.is_failing { AFTER_ERROR } else { GATHER };
        while !state.is_urgent() {
            if self.shared.wake.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut state.buffer, batch);
        Turn {
            size: batch.len(),
            must_reopen: std::mem::take(&mut state.must_reopen),
            redirect: state.redirect.take(),
            must_stop: state.must_stop,
            asked: state.asked,
        }
    }

    fn reopen(&mut self) {
        let To::File(path) = &self.output.to else { return };
        match open_file(path) {
            Ok(file) => {
                self.output.file = file;
                self.is_torn = false;
            }
            Err(error) => {
                self.shared.counts.errors.fetch_add(1, Relaxed);
                log::error!("reopen access log {}: {error}; it goes on in the file that was open", self.output.name());
            }
        }
    }

    fn write(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let counts = self.shared.counts.clone();
        let (written, result) = self.write_all(batch);
        let lines = lines_in(&batch[..written]);
        counts.bytes.fetch_add(written as u64, Relaxed);
        counts.lines.fetch_add(lines, Relaxed);
        self.is_torn = match batch[..written].last() {
            Some(last) => *last != b'\n',
            None => self.is_torn,
        };
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    log::warn!("access log {}: written again; {} lines were lost so far", self.output.name(), counts.dropped.load(Relaxed));
                }
            }
            Err(error) => {
                let lost = lines_in(&batch[written..]);
                counts.dropped.fetch_add(lost, Relaxed);
                counts.errors.fetch_add(1, Relaxed);
                log::error!("write access log {}: {error}; {lost} lines lost", self.output.name());
                self.is_failing = true;
            }
        }
    }

    /// How many bytes of the batch were written, and why no more.
    fn write_all(&mut self, batch: &[u8]) -> (usize, io::Result<()>) {
        if self.is_torn
            && let Err(error) = self.output.file.write_all(b"\n")
        {
            return (0, Err(error));
        }
        self.is_torn = false;
        let mut written = 0;
        while written < batch.len() {
            match self.output.file.write(&batch[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

/// What one turn of the writer is to do besides writing.
struct Turn {
    size: usize,
    must_reopen: bool,
    redirect: Option<Output>,
    must_stop: bool,
    asked: u64,
}

fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A bound that no test waits for; it only ends a hang.
    const LONG: Duration = Duration::from_secs(60);

    fn to_file(path: &Path) -> Output {
        Output::open(To::File(path.to_owned())).unwrap()
    }

    #[test]
    fn lines_of_many_threads_arrive_whole_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let sink = Sink::start(to_file(&path), ROOM).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let sink = &sink;
                scope.spawn(move || (0..500).for_each(|n| sink.append(format!("{thread} {n}\n").as_bytes())));
            }
        });
        assert!(sink.flush(LONG));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2000);
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 2000);
        let counts = sink.counts();
        assert_eq!(counts.lines.load(Relaxed), 2000);
        assert_eq!(counts.bytes.load(Relaxed), text.len() as u64);
        assert_eq!(counts.dropped.load(Relaxed), 0);
    }

    #[test]
    fn a_line_that_does_not_fit_is_dropped_whole_and_counted() {
        let sink = Sink::idle(10); // nobody writes
        sink.append(b"12345\n");
        sink.append(b"67890\n");
        sink.append(b"abc\n");
        assert_eq!(sink.shared.state.lock().buffer, b"12345\nabc\n");
        assert_eq!(sink.counts().dropped.load(Relaxed), 1);
    }

    #[test]
    fn appending_never_makes_the_buffer_grow() {
        let sink = Sink::idle(4096);
        let before = sink.shared.state.lock().buffer.as_ptr();
        (0..1000).for_each(|_| sink.append(b"a line of some length\n"));
        let state = sink.shared.state.lock();
        assert_eq!(state.buffer.as_ptr(), before);
        assert!(state.buffer.capacity() < 8192);
    }

    #[test]
    fn only_a_line_that_finds_the_writer_asleep_wakes_it() {
        let sink = Sink::idle(100);
        sink.shared.state.lock().is_asleep = true;
        sink.append(b"a\n");
        assert!(!sink.shared.state.lock().is_asleep);
    }

    #[test]
    fn after_a_rotation_lines_go_to_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rotated) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let sink = Sink::start(to_file(&path), ROOM).unwrap();
        sink.append(b"before\n");
        assert!(sink.flush(LONG));
        std::fs::rename(&path, &rotated).unwrap();
        sink.append(b"between\n");
        assert!(sink.flush(LONG));
        sink.reopen();
        assert!(sink.flush(LONG));
        sink.append(b"after\n");
        assert!(sink.flush(LONG));
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "before\nbetween\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0, "others may not read it, nobody execute it");
    }

    #[test]
    fn a_file_that_cannot_be_reopened_is_counted_and_the_open_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, moved) = (dir.path().join("logs"), dir.path().join("moved"));
        std::fs::create_dir(&inside).unwrap();
        let sink = Sink::start(to_file(&inside.join("access.log")), ROOM).unwrap();
        std::fs::rename(&inside, &moved).unwrap();
        sink.reopen();
        sink.append(b"still here\n");
        assert!(sink.flush(LONG));
        assert_eq!(std::fs::read_to_string(moved.join("access.log")).unwrap(), "still here\n");
        assert_eq!(sink.counts().errors.load(Relaxed), 1);
    }

    #[test]
    fn a_full_disk_is_counted_and_ends_with_the_redirection_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let sink = Sink::start(to_file(Path::new("/dev/full")), ROOM).unwrap();
        sink.append(b"one\ntwo\n");
        assert!(sink.flush(LONG));
        let counts = sink.counts();
        assert_eq!(counts.dropped.load(Relaxed), 2);
        assert_eq!(counts.errors.load(Relaxed), 1);
        assert_eq!(counts.lines.load(Relaxed), 0);
        sink.redirect(to_file(&path));
        sink.append(b"three\n");
        assert!(sink.flush(LONG));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(counts.lines.load(Relaxed), 1);
    }

    #[test]
    fn after_a_torn_write_the_next_line_begins_on_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let shared = Sink::idle(10).shared.clone();
        let mut writer = Writer { shared, output: to_file(&path), is_torn: true, is_failing: true };
        std::fs::write(&path, "{\"half").unwrap();
        writer.write(b"{}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"half\n{}\n");
        assert!(!writer.is_torn && !writer.is_failing);
    }

    #[test]
    fn a_stalled_reader_bounds_the_flush_and_never_the_requests() {
        let (reader, pipe) = io::pipe().unwrap();
        let output = Output { to: To::Stdout, file: File::from(std::os::fd::OwnedFd::from(pipe)) };
        let sink = Sink::start(output, 1024 * 1024).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        (0..4096).for_each(|_| sink.append(&line)); // four times the room, sixty-four times the pipe
        assert!(!sink.flush(Duration::ZERO));
        assert!(sink.counts().dropped.load(Relaxed) >= 1024);
        drop(reader); // lets the writer go on, into an error
        assert!(sink.flush(LONG));
        assert_eq!(sink.counts().lines.load(Relaxed) + sink.counts().dropped.load(Relaxed), 4096);
    }

    #[test]
    fn dropping_the_sink_writes_what_was_taken() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let output = Output { to: To::Stdout, file: File::from(std::os::fd::OwnedFd::from(pipe)) };
        let sink = Sink::start(output, ROOM).unwrap();
        sink.append(b"last words\n");
        drop(sink);
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap(); // ends when the writer closes its end
        assert_eq!(text, "last words\n");
    }
}
