//! Whether the system has room for what a program will start. Libraries panic, or wait for ever, where they cannot start a
//! thread or open a file; a refusal beforehand is one line.

use std::fmt;
use std::fs::File;
use std::io;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

/// Stack of the thread that a program runs on, in bytes: what systems usually give, whatever `ulimit -s` says.
const STACK: usize = 8 << 20;

/// A limit of the system that leaves no room.
#[derive(Debug)]
pub struct NoRoom {
    what: &'static str,
    wanted: usize,
    /// The flag of `ulimit` that shows the limit.
    flag: &'static str,
    source: io::Error,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoRoom { what, wanted, flag, source } = self;
        write!(
            f,
            "cannot have {wanted} {what} at the same time: {source}; see ulimit {flag}, ulimit -v and the limits of a container"
        )
    }
}

impl std::error::Error for NoRoom {}

/// Opens so many files and starts so many threads, all at the same time, and gives them back.
pub fn check(threads: usize, files: usize) -> Result<(), NoRoom> {
    open_at_once(files).map_err(|source| NoRoom { what: "files", wanted: files, flag: "-n", source })?;
    start_at_once(threads).map_err(|source| NoRoom { what: "threads", wanted: threads, flag: "-u", source })
}

/// Runs a program on a thread with a stack of its own.
pub fn on_own_stack(program: fn() -> ExitCode) -> Result<ExitCode, NoRoom> {
    let started = Builder::new().name("main".to_owned()).stack_size(STACK).spawn(program);
    let thread = started.map_err(|source| NoRoom { what: "threads", wanted: 1, flag: "-u", source })?;
    // A panic has said already what it is.
    Ok(thread.join().unwrap_or(ExitCode::from(101)))
}

/// Does the work of each part, on a thread of its own but for the first. What the system has no room to start a thread for is
/// done here, one after another.
pub fn share_out<W: Send>(parts: impl IntoIterator<Item = W>, work: impl Fn(W) + Sync) {
    let parts: Vec<Mutex<Option<W>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
    let run = |index: usize| {
        let part = parts[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(part) = part {
            work(part);
        }
    };
    thread::scope(|scope| {
        let run = &run;
        let is_left = |index: usize| Builder::new().spawn_scoped(scope, move || run(index)).is_err();
        let left: Vec<usize> = (1..parts.len()).filter(|index| is_left(*index)).collect();
        (0..parts.len().min(1)).chain(left).for_each(run);
    });
}

fn open_at_once(files: usize) -> io::Result<()> {
    // A device that is on every system of the kind whose limits are low.
    if cfg!(not(unix)) {
        return Ok(());
    }
    (0..files).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<File>>>().map(drop)
}

fn start_at_once(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        for _ in 0..threads {
            Builder::new().spawn_scoped(scope, || drop(gate.lock().unwrap_or_else(PoisonError::into_inner)))?;
        }
        drop(closed);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once() {
        for parts in [0, 1, 2, 7] {
            let mut done = vec![0; parts];
            share_out(done.iter_mut().zip(1..), |(done, number)| *done += number);
            assert_eq!(done, (1..=parts).collect::<Vec<usize>>());
        }
    }

    #[test]
    fn there_is_room_for_a_few() {
        check(4, 8).expect("any system has room for these");
        assert_eq!(on_own_stack(|| ExitCode::SUCCESS).expect("a thread"), ExitCode::SUCCESS);
        assert_eq!(check(0, 1 << 30).expect_err("too many").what, "files");
    }
}
