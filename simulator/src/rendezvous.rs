//! Where the threads of a phase meet between windows.
//!
//! A window takes a fraction of a millisecond: to sleep and be woken takes about as long as what is waited for. So a thread
//! that comes early looks a while whether the others are there, and only then goes to sleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Looks before sleep, some 20 µs of them: a machine with fewer cores than threads loses no more.
const LOOKS: u32 = 2_000;

/// A point at which threads wait for each other.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    /// How many meet; more than ever come until that is said.
    threads: AtomicUsize,
    arrived: AtomicUsize,
    turn: AtomicUsize,
    /// Held to begin a turn and to fall asleep, so that nobody sleeps through it.
    asleep: Mutex<()>,
    awake: Condvar,
}

impl Default for Rendezvous {
    fn default() -> Rendezvous {
        Rendezvous {
            threads: AtomicUsize::new(usize::MAX),
            arrived: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            asleep: Mutex::new(()),
            awake: Condvar::new(),
        }
    }
}

impl Rendezvous {
    /// Says how many meet, before the thread that says it comes itself; others may be waiting by then.
    pub(crate) fn expect(&self, threads: usize) {
        self.threads.store(threads, Ordering::Release);
    }

    /// Waits until all threads are here. What they did before, all see afterwards.
    pub(crate) fn wait(&self) {
        if self.threads.load(Ordering::Acquire) == 1 {
            return;
        }
        let turn = self.turn.load(Ordering::Acquire);
        // Whoever comes after the thread that has said how many they are sees it, and nobody is the last before.
        let arrived = self.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        if arrived == self.threads.load(Ordering::Acquire) {
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
        let rendezvous = Rendezvous::default();
        rendezvous.expect(3);
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
