//! Signals that ask a program to end: Ctrl-C, the polite signal of a service manager, and the end of the terminal.
//!
//! [`listen`] is called once, at the start of a program. From then on the first signal reaches whoever waits in [`asked`] or
//! looks at [`flag`], so that it can put things in order; where nobody does, it ends the process at once. The second signal
//! ends it in any case. A process that is the first of its container has handlers too, which is what makes these signals
//! reach it at all.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A signal that asks a program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Interrupt,
    /// SIGTERM: a service manager, or `kill`.
    Terminate,
    /// SIGHUP: the terminal is gone.
    HangUp,
}

impl Ending {
    /// What a program ends with because of it: 128 and the signal's number, as shells have it.
    pub fn exit_code(self) -> u8 {
        128 + self.number()
    }

    fn number(self) -> u8 {
        match self {
            Ending::HangUp => 1,
            Ending::Interrupt => 2,
            Ending::Terminate => 15,
        }
    }

    fn of_number(number: u8) -> Option<Ending> {
        [Ending::HangUp, Ending::Interrupt, Ending::Terminate].into_iter().find(|ending| ending.number() == number)
    }
}

static LISTENING: Once = Once::new();
/// Number of the first signal; 0 before it.
static FIRST: AtomicU8 = AtomicU8::new(0);
static FLAG: AtomicBool = AtomicBool::new(false);
/// Who wants to hear of it.
static WAITING: AtomicUsize = AtomicUsize::new(0);
static NOTIFY: Notify = Notify::const_new();

/// Starts to listen. Without a thread to be had, signals end the process as they do without this.
pub fn listen() {
    LISTENING.call_once(|| {
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(|| {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                // Signals that cannot be listened to do what they always did.
                let _ = runtime.block_on(pass_on());
            }
        });
    });
}

/// The first signal that has come, if one has.
pub fn first() -> Option<Ending> {
    Ending::of_number(FIRST.load(Ordering::Acquire))
}

/// The exit code of a program that was asked to end: that of the signal, or that of Ctrl-C where nobody knows better.
pub fn exit_code() -> u8 {
    first().unwrap_or(Ending::Interrupt).exit_code()
}

/// Resolves when the process is asked to end.
pub async fn asked() -> Ending {
    listen();
    let _waiting = SignalWaiter::new();
    loop {
        let notified = NOTIFY.notified();
        if let Some(ending) = first() {
            return ending;
        }
        notified.await;
    }
}

/// A flag that is set when the process is asked to end, for work that looks now and then. Who calls this has to look.
pub fn flag() -> &'static AtomicBool {
    listen();
    // For good: there is no telling when the work is over.
    std::mem::forget(SignalWaiter::new());
    &FLAG
}

/// Counts itself among those that put things in order before the process ends.
struct SignalWaiter;

impl SignalWaiter {
    fn new() -> SignalWaiter {
        WAITING.fetch_add(1, Ordering::AcqRel);
        SignalWaiter
    }
}

impl Drop for SignalWaiter {
    fn drop(&mut self) {
        // After the first signal it stays counted: what it waits for is being put in order now.
        if first().is_none() {
            WAITING.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Passes the first signal on, and ends the process with the second, or where nobody waits.
async fn pass_on() -> std::io::Result<()> {
    let mut signals = SignalListener::new()?;
    loop {
        let ending = signals.next().await;
        let is_first = FIRST.compare_exchange(0, ending.number(), Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !is_first || WAITING.load(Ordering::Acquire) == 0 {
            std::process::exit(i32::from(ending.exit_code()));
        }
        FLAG.store(true, Ordering::Release);
        NOTIFY.notify_waiters();
    }
}

#[cfg(unix)]
struct SignalListener {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Not where it was ignored when the program started, as under `nohup`.
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl SignalListener {
    fn new() -> std::io::Result<SignalListener> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(SignalListener {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) -> Ending {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Interrupt,
            _ = self.terminate.recv() => Ending::Terminate,
            _ = hang_up => Ending::HangUp,
        }
    }
}

/// Whether the process was started with SIGHUP ignored; told by `/proc` where there is one.
#[cfg(unix)]
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 is signal 1.
    ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & 1 == 1)
}

#[cfg(not(unix))]
struct SignalListener;

#[cfg(not(unix))]
impl SignalListener {
    fn new() -> std::io::Result<SignalListener> {
        Ok(SignalListener)
    }

    async fn next(&mut self) -> Ending {
        // An error would mean that there is no Ctrl-C to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Ending::Interrupt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_shells() {
        let codes = [Ending::HangUp, Ending::Interrupt, Ending::Terminate].map(Ending::exit_code);
        assert_eq!(codes, [129, 130, 143]);
        assert_eq!(Ending::of_number(15), Some(Ending::Terminate));
        assert_eq!(Ending::of_number(9), None);
    }
}
