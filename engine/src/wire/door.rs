//! Who gets through a pool's door: handshakes that are under way, and the places of those that have greeted.

use std::collections::BTreeMap;

use super::frame::Goodbye;
use crate::id::ConnectionId;
use crate::time::{Span, Time};

/// Handshakes under way up to which a newcomer is taken at its word about its address.
const TRUSTED_HANDSHAKES: usize = 8;

/// Most connections that are shaking hands, or have yet to greet, at a time.
pub const MOST_HANDSHAKES: usize = 256;

/// How long a connection without a session keeps its place against newcomers after its last one was at work.
pub const KEEPS_PLACE: Span = Span::from_millis(10_000);

/// The same for a connection that never had one, after it was let in: some round trips. A pool that strangers have filled lets
/// in as many newcomers as it has places in this time. With ten seconds a pool of 24 places let in two a second, shared with
/// the strangers that came back, and a fleet whose devices connect for each answer did half of its work.
pub const KEEPS_UNUSED_PLACE: Span = Span::from_millis(500);

/// What a newcomer's first packet is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstAnswer {
    Handshake,
    /// A token that the newcomer has to send back. Nothing is kept of it until then, so packets with a forged source cost
    /// nothing and take nobody's turn; an honest newcomer loses one round trip.
    ProveAddress,
    /// A refusal; a device tries again after a pause.
    Refusal,
}

/// What to answer while this many handshakes are `under_way`; `is_proven`: whether the newcomer has shown that it receives
/// what is sent to its address.
pub fn first_answer(under_way: usize, is_proven: bool) -> FirstAnswer {
    match (under_way, is_proven) {
        (MOST_HANDSHAKES.., true) => FirstAnswer::Refusal,
        (TRUSTED_HANDSHAKES.., false) => FirstAnswer::ProveAddress,
        _ => FirstAnswer::Handshake,
    }
}

/// Refusals in a row after which a connection's uploads are read more slowly.
const UNPACED_REFUSALS: u32 = 8;

/// Longest pause before the next frame of a connection whose uploads are refused is read.
const LONGEST_PAUSE: Span = Span::from_millis(50);

/// Shortest one, where a refusal names no time.
const SHORTEST_PAUSE: Span = Span::from_millis(5);

/// How often in a row a connection's uploads were refused, and how slowly what follows is read therefore.
///
/// A refused upload costs its sender next to nothing and the pool what an admitted one costs it before the verifier: a client
/// with one connection, on a twentieth of a core, took a saturated fleet nearly half of its throughput. An honest device waits
/// for what its refusal says before it tries again, so a pause of that length is over when its next upload comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    in_a_row: u32,
    pause: Span,
}

impl Refusals {
    /// An upload was refused; its sender was told to wait for so long.
    pub fn refused(&mut self, retry_after: Span) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.pause = retry_after.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    }

    /// An upload was answered with a verdict.
    pub fn answered(&mut self) {
        self.in_a_row = 0;
    }

    /// How long nothing of the connection is read; it is taken once.
    pub fn take_pause(&mut self) -> Option<Span> {
        let pause = std::mem::take(&mut self.pause);
        (self.in_a_row > UNPACED_REFUSALS && pause > Span::ZERO).then_some(pause)
    }
}

/// The places of a pool: which connections have one, and who gives up theirs to a newcomer.
///
/// A connection without a session is sent away only when the pool is full, somebody who has greeted wants its place, and it has
/// had nothing to do for [`KEEPS_PLACE`] or [`KEEPS_UNUSED_PLACE`]. A time limit alone would be simpler, and wrong: a device is
/// idle for as long as its user thinks, or while others of its run are still at work, and may draft for minutes before its first
/// upload. An honest fleet never fills a pool, which has a place for each of its devices and some to spare; so it loses none
/// whatever its devices wait for. Where strangers fill it, those that never had a session go first, so a device between two
/// generations goes last; one that drafts for long before its first upload may go, and when it connects again it is itself the
/// newcomer that somebody makes room for.
#[derive(Debug)]
pub struct DoorPlaces {
    most: usize,
    guests: BTreeMap<ConnectionId, Guest>,
}

/// A connection that has a place.
#[derive(Clone, Copy, Debug)]
struct Guest {
    /// Whether it ever had an upload admitted.
    has_worked: bool,
    /// When it was let in, or was last at work.
    since: Time,
}

impl Guest {
    /// For how long nobody takes its place.
    fn keeps(&self) -> Span {
        if self.has_worked { KEEPS_PLACE } else { KEEPS_UNUSED_PLACE }
    }
}

impl DoorPlaces {
    /// This many, all of them free.
    pub fn new(most: usize) -> DoorPlaces {
        DoorPlaces { most, guests: BTreeMap::new() }
    }

    /// Gives `newcomer` a place at `now`, and says who has to leave for it; the error is a pool without a place to give.
    /// `is_idle`: whether a connection has no session.
    pub fn enter(
        &mut self,
        now: Time,
        newcomer: ConnectionId,
        is_idle: impl Fn(ConnectionId) -> bool,
    ) -> Result<Option<ConnectionId>, Goodbye> {
        let mut leaving = None;
        if self.guests.len() >= self.most {
            let idle =
                self.guests.iter().filter(|(id, guest)| now.since(guest.since) >= guest.keeps() && is_idle(**id));
            let first = idle.min_by_key(|(id, guest)| (guest.has_worked, guest.since, **id));
            leaving = Some(*first.ok_or(Goodbye::Full)?.0);
        }
        if let Some(leaving) = leaving {
            self.leave(leaving);
        }
        self.guests.insert(newcomer, Guest { has_worked: false, since: now });
        Ok(leaving)
    }

    /// An upload of the connection was admitted, or one of its sessions has ended. What is refused is no work.
    pub fn worked(&mut self, now: Time, connection: ConnectionId) {
        if let Some(guest) = self.guests.get_mut(&connection) {
            *guest = Guest { has_worked: true, since: now };
        }
    }

    /// The connection is gone.
    pub fn leave(&mut self, connection: ConnectionId) {
        self.guests.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_costs_nothing_once_a_few_shake_hands() {
        use FirstAnswer::{Handshake, ProveAddress, Refusal};
        for (under_way, unproven, proven) in [
            (0, Handshake, Handshake),
            (TRUSTED_HANDSHAKES - 1, Handshake, Handshake),
            (TRUSTED_HANDSHAKES, ProveAddress, Handshake),
            (MOST_HANDSHAKES - 1, ProveAddress, Handshake),
            (MOST_HANDSHAKES, ProveAddress, Refusal),
            (usize::MAX, ProveAddress, Refusal),
        ] {
            assert_eq!(
                (first_answer(under_way, false), first_answer(under_way, true)),
                (unproven, proven),
                "{under_way}"
            );
        }
    }

    #[test]
    fn who_is_refused_again_and_again_is_read_slowly_until_it_is_answered() {
        let mut refusals = Refusals::default();
        let refused = |refusals: &mut Refusals, milliseconds| {
            refusals.refused(Span::from_millis(milliseconds));
            refusals.take_pause().map(|pause| pause.0 / 1_000_000)
        };
        for _ in 0..UNPACED_REFUSALS {
            assert_eq!(refused(&mut refusals, 20), None, "anybody is refused now and then");
        }
        assert_eq!(refused(&mut refusals, 20), Some(20), "what the refusal asks for");
        assert_eq!(refusals.take_pause(), None, "once for each refusal");
        assert_eq!((refused(&mut refusals, 0), refused(&mut refusals, 60_000)), (Some(5), Some(50)));
        refusals.answered();
        assert_eq!(refused(&mut refusals, 20), None);
    }

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    const NOBODY: fn(ConnectionId) -> bool = |_| false;
    const EVERYBODY: fn(ConnectionId) -> bool = |_| true;

    #[test]
    fn nobody_leaves_while_there_is_room() {
        let mut places = DoorPlaces::new(3);
        for id in 0..3 {
            assert_eq!(places.enter(at(0), ConnectionId(id), EVERYBODY), Ok(None));
        }
        places.leave(ConnectionId(1));
        // However long the others have been idle.
        assert_eq!(places.enter(at(1_000), ConnectionId(3), EVERYBODY), Ok(None));
    }

    #[test]
    fn a_newcomer_gets_the_place_of_who_has_been_idle_for_long() {
        let mut places = DoorPlaces::new(2);
        for id in 0..2 {
            places.enter(at(0), ConnectionId(id), EVERYBODY).expect("room");
            places.worked(at(id), ConnectionId(id));
        }
        let newcomer = ConnectionId(2);
        assert_eq!(places.enter(at(9), newcomer, EVERYBODY), Err(Goodbye::Full));
        assert_eq!(places.enter(at(60), newcomer, NOBODY), Err(Goodbye::Full));
        assert_eq!(places.enter(at(10), newcomer, EVERYBODY), Ok(Some(ConnectionId(0))));
        // It has been there for no time, and the other for a second less than the limit.
        assert_eq!(places.enter(at(10), ConnectionId(3), EVERYBODY), Err(Goodbye::Full));
        places.worked(at(10), newcomer);
        assert_eq!(places.enter(at(11), ConnectionId(3), EVERYBODY), Ok(Some(ConnectionId(1))));
    }

    #[test]
    fn a_place_that_was_never_used_is_kept_for_a_moment() {
        let mut places = DoorPlaces::new(1);
        let moment = |part: u64| Time(KEEPS_UNUSED_PLACE.0 * part / 4);
        places.enter(at(0), ConnectionId(0), EVERYBODY).expect("room");
        assert_eq!(places.enter(moment(3), ConnectionId(1), EVERYBODY), Err(Goodbye::Full));
        assert_eq!(places.enter(moment(4), ConnectionId(1), NOBODY), Err(Goodbye::Full));
        assert_eq!(places.enter(moment(4), ConnectionId(1), EVERYBODY), Ok(Some(ConnectionId(0))));
    }

    #[test]
    fn who_never_had_a_session_leaves_first() {
        let mut places = DoorPlaces::new(2);
        places.enter(at(0), ConnectionId(0), EVERYBODY).expect("room");
        places.enter(at(5), ConnectionId(1), EVERYBODY).expect("room");
        places.worked(at(0), ConnectionId(0));
        assert_eq!(places.enter(at(20), ConnectionId(2), EVERYBODY), Ok(Some(ConnectionId(1))));
        assert_eq!(places.enter(at(20), ConnectionId(3), EVERYBODY), Ok(Some(ConnectionId(0))));
        // A guest that has left is none, whatever is still heard of it.
        places.worked(at(21), ConnectionId(0));
        assert_eq!(places.guests.len(), 2);
    }
}
