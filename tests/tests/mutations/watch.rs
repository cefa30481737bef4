//! Feeds damaged inputs to a parser and watches it: each must end in an answer, soon, with little memory and without a
//! panic. What fails is named by kind, seed and number, and lies in a file.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use specfleet_tests::mutator::Mutator;
use tempfile::TempDir;

use crate::heap;

/// Damaged inputs of each kind.
const INPUTS: u64 = 1000;

/// Longest time that an answer may take, twice in a row: once the machine may have been busy with something else.
const LONGEST: Duration = Duration::from_secs(2);

/// After this long there is no answer to wait for.
const HANGS: Duration = Duration::from_secs(60);

/// Most memory that is held for an input at a time.
const MOST_BYTES: usize = 256 << 20;

/// The heap is that of the whole process, so that what helper threads allocate counts: one kind at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A damaged input.
pub(crate) struct Input {
    /// Which of the kind's files it was made of.
    pub(crate) base: usize,
    pub(crate) bytes: Vec<u8>,
}

/// What a worker says.
enum Message {
    Begins(u64),
    Ended(Result<u64, String>),
}

/// Makes the inputs of a kind from whole ones and gives each to `answer`, which says whether it was taken and panics where a promise is
/// broken. A kind of which all or none were taken would test little, so that fails too.
pub(crate) fn watch(
    kind: &'static str,
    seed: u64,
    bases: Vec<Vec<u8>>,
    make: impl Fn(&mut Mutator, &[Vec<u8>]) -> Input + Send + 'static,
    answer: impl Fn(&Input) -> bool + Send + 'static,
) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = INPUTS * factor();
    let (sender, receiver) = channel();
    let begun = Instant::now();
    // A thread of its own: one that hangs is left behind. Its name is what a stack overflow prints.
    let worker = thread::Builder::new().name(format!("{kind}, seed {seed}"));
    let work = move || {
        let ended = run(kind, seed, count, &sender, &bases, make, answer);
        let _ = sender.send(Message::Ended(ended));
    };
    worker.spawn(work).expect("a thread");
    let mut number = 0;
    let taken = loop {
        match receiver.recv_timeout(HANGS) {
            Ok(Message::Begins(next)) => number = next,
            Ok(Message::Ended(Ok(taken))) => break taken,
            Ok(Message::Ended(Err(problem))) => panic!("{kind}, seed {seed}, mutation {number}: {problem}"),
            Err(RecvTimeoutError::Timeout) => panic!("{kind}, seed {seed}, mutation {number}: no answer in {HANGS:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("{kind}, seed {seed}, mutation {number}: could not be made"),
        }
    };
    drop(turn);
    println!("{kind}: {taken} of {count} taken, {:.1} s", begun.elapsed().as_secs_f64());
    assert!((1..count).contains(&taken), "{kind}: {taken} of {count} were taken");
}

/// How many times as many inputs somebody asked for.
fn factor() -> u64 {
    let Ok(text) = env::var("SPECFLEET_MUTATIONS") else { return 1 };
    text.parse().ok().filter(|factor| *factor > 0).expect("SPECFLEET_MUTATIONS is a factor: a whole number above 0")
}

/// All inputs in turn; how many were taken, or the first problem.
fn run(
    kind: &str,
    seed: u64,
    count: u64,
    sender: &Sender<Message>,
    bases: &[Vec<u8>],
    make: impl Fn(&mut Mutator, &[Vec<u8>]) -> Input,
    answer: impl Fn(&Input) -> bool,
) -> Result<u64, String> {
    for (base, bytes) in bases.iter().enumerate() {
        if !checked(&Input { base, bytes: bytes.clone() }, &answer)? {
            return Err(format!("base {base} is refused as it is, so damage to it tells nothing"));
        }
    }
    let (mut mutator, mut taken) = (Mutator::new(seed), 0);
    for number in 0..count {
        let input = make(&mut mutator, bases);
        heap::name_input(seed, number);
        let _ = sender.send(Message::Begins(number));
        taken += u64::from(checked(&input, &answer).map_err(|problem| {
            let place = save(kind, number, &input.bytes);
            format!("base {}, {problem} (the input lies in {})", input.base, place.display())
        })?);
    }
    Ok(taken)
}

/// Whether an input was taken, or what is wrong with the answer.
fn checked(input: &Input, answer: &impl Fn(&Input) -> bool) -> Result<bool, String> {
    let timed = || {
        let (held, begun) = (heap::begin(), Instant::now());
        let taken = catch_unwind(AssertUnwindSafe(|| answer(input)))
            .map_err(|panic| format!("panicked: {}", words_of(panic.as_ref())))?;
        let bytes = heap::peak().saturating_sub(held);
        if bytes > MOST_BYTES {
            return Err(format!("{bytes} bytes were allocated, at most {MOST_BYTES} may be"));
        }
        Ok((taken, begun.elapsed()))
    };
    let (taken, elapsed) = timed()?;
    if elapsed > LONGEST {
        let (_, again) = timed()?;
        if again > LONGEST {
            return Err(format!("the answer took {elapsed:?} and {again:?}"));
        }
    }
    Ok(taken)
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// Keeps an input that failed: some are made of files that no two processes write alike.
fn save(kind: &str, number: u64, bytes: &[u8]) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", kind.replace(' ', "-")));
    fs::write(&place, bytes).expect("room for the input");
    place
}

/// A temporary folder, in memory where the system has a place for it: stores wait for the disk, thousands of times.
pub(crate) fn temporary_folder() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}
