//! Where the threads of a phase meet between windows.
//!
//! A window takes a fraction of a millisecond: to sleep and be woken takes about as long as what is waited for. So a thread
//! that comes early looks a while whether the others are there, and only then goes to sleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Looks before sleep, some 20 µs of them: a machine with fewer cores than threads loses no more.
const LOOKS: u32 = 2_000;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    threads: usize,
    /// Of this turn.
    arrived: AtomicUsize,
    turn: AtomicUsize,
    /// Held to begin a turn and to fall asleep, so that nobody sleeps through it.
    asleep: Mutex<()>,
    awake: Condvar,
}

impl Rendezvous {
    pub(crate) fn new(threads: usize) -> Rendezvous {
        Rendezvous {
            threads,
            arrived: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            asleep: Mutex::new(()),
            awake: Condvar::new(),
        }
    }

    /// Waits until all threads are here. What they did before, all see afterwards.
    pub(crate) fn wait(&self) {
        if self.threads == 1 {
            return;
        }
        let turn = self.turn.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.turn.store(turn.wrapping_add(1), Ordering::Release);
            drop(asleep);
            self.awake.notify_all();
            return;
        }
        for _ in 0..LOOKS {
            if self.turn.load(Ordering::Acquire) != turn {
                return;
            }
            spin_loop();
        }
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        while self.turn.load(Ordering::Acquire) == turn {
            asleep = self.awake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody is a turn ahead of anybody, whoever is slow.
    #[test]
    fn all_meet_in_every_turn() {
        let rendezvous = Rendezvous::new(3);
        let counts: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for own in 0..3 {
                let (rendezvous, counts) = (&rendezvous, &counts);
                scope.spawn(move || {
                    for turn in 1..=2_000 {
                        counts[own].store(turn, Ordering::Relaxed);
                        if turn % 100 == own {
                            std::thread::sleep(std::time::Duration::from_micros(200));
                        }
                        rendezvous.wait();
                        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == turn));
                        rendezvous.wait();
                    }
                });
            }
        });
    }
}
