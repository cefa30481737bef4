//! All connections of a server, and who has to go when there is no place for another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// How long a connection must have stood still before it makes room for another.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How often somebody who waits for a place looks for one.
const LOOK: Duration = Duration::from_millis(100);

/// The connections of a server.
#[derive(Clone, Debug)]
pub(crate) struct Crowd(Arc<CrowdInner>);

#[derive(Debug)]
struct CrowdInner {
    most: usize,
    began: Instant,
    places: Mutex<ConnectionPlaces>,
}

#[derive(Debug, Default)]
struct ConnectionPlaces {
    next: u64,
    taken: BTreeMap<u64, Arc<Standing>>,
}

/// How one connection stands.
#[derive(Debug, Default)]
struct Standing {
    /// When bytes last went over it, in milliseconds since the server began.
    moved: AtomicU64,
    /// Whether bytes wait for its reader since then.
    blocked: AtomicBool,
    /// Whether it has to end.
    cut: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    crowd: Crowd,
    number: u64,
    standing: Arc<Standing>,
}

impl Crowd {
    pub(crate) fn new(most: usize) -> Crowd {
        Crowd(Arc::new(CrowdInner { most, began: Instant::now(), places: Mutex::default() }))
    }

    fn places(&self) -> MutexGuard<'_, ConnectionPlaces> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> ConnectionPlace {
        loop {
            match self.try_enter() {
                Some(place) => return place,
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// A place, if there is one, or if somebody who stands still can be sent away.
    pub(crate) fn try_enter(&self) -> Option<ConnectionPlace> {
        self.try_enter_at(self.milliseconds())
    }

    /// The same at `now`, in milliseconds since the server began.
    fn try_enter_at(&self, now: u64) -> Option<ConnectionPlace> {
        let mut places = self.places();
        if places.taken.len() >= self.0.most {
            let number = places.longest_still(now)?;
            if let Some(standing) = places.taken.remove(&number) {
                standing.cut();
            }
        }
        let number = places.next;
        places.next += 1;
        let standing = Arc::new(Standing { moved: AtomicU64::new(now), ..Standing::default() });
        places.taken.insert(number, standing.clone());
        drop(places);
        Some(ConnectionPlace { crowd: self.clone(), number, standing })
    }
}

impl ConnectionPlaces {
    /// Who has stood still longest: of those whose answer nobody reads, and only where there are none of the others.
    fn longest_still(&self, now: u64) -> Option<u64> {
        let still = self.taken.iter().filter_map(|(number, standing)| {
            let moved = standing.moved.load(Ordering::Relaxed);
            let idle = !standing.blocked.load(Ordering::Relaxed);
            (u128::from(now.saturating_sub(moved)) >= STANDSTILL.as_millis()).then_some((idle, moved, *number))
        });
        still.min().map(|(.., number)| number)
    }
}

impl Standing {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl ConnectionPlace {
    /// Whether the connection has to end. Whoever asks is woken when the answer changes.
    pub(crate) fn is_cut(&self, waker: &Waker) -> bool {
        let mut kept = self.standing.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
        drop(kept);
        self.standing.cut.load(Ordering::Acquire)
    }

    /// Bytes went over the connection.
    pub(crate) fn moved(&self) {
        self.moved_at(self.crowd.milliseconds());
    }

    /// The same at `now`, in milliseconds since the server began.
    fn moved_at(&self, now: u64) {
        self.standing.moved.store(now, Ordering::Relaxed);
    }

    /// Bytes wait for its reader, or no longer.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.standing.blocked.store(blocked, Ordering::Relaxed);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.crowd.places().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Times are passed in rather than waited for, because a host that stands still must not decide a test.
    #[test]
    fn who_stands_still_makes_room() {
        let crowd = Crowd::new(3);
        let enter = |now| crowd.try_enter_at(now);
        let idle = enter(0).expect("a place");
        let blocked = enter(0).expect("a place");
        blocked.set_blocked(true);
        let busy = enter(0).expect("a place");
        let still = u64::try_from(STANDSTILL.as_millis()).expect("a short time");
        assert!(enter(still - 1).is_none(), "nobody has stood still for long");
        let now = 2 * still;
        busy.moved_at(now);
        let next = enter(now).expect("the blocked one makes room");
        let gone = |place: &ConnectionPlace| place.is_cut(Waker::noop());
        assert_eq!([gone(&idle), gone(&blocked), gone(&busy)], [false, true, false]);
        let last = enter(now).expect("the idle one makes room");
        assert_eq!([gone(&idle), gone(&busy), gone(&next)], [true, false, false]);
        assert!(enter(now).is_none());
        // The place of one that was sent away is not free twice.
        drop(blocked);
        assert!(enter(now).is_none());
        drop(last);
        assert!(enter(now).is_some());
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let crowd = Crowd::new(1);
        let first = crowd.enter().await;
        let began = Instant::now();
        let _second = crowd.enter().await;
        assert!(first.is_cut(Waker::noop()) && began.elapsed() >= STANDSTILL);
    }
}
