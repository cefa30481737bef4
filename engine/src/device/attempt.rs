//! One attempt to send an upload: which channel it meets, and when its answers leave the pool by the emulated accounts.

use super::link::ChannelKey;
use crate::time::{Span, Time};

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// When the upload has arrived at the pool, or its latest answer has left it.
    at_pool: Time,
    /// What the channel of its frames is drawn from.
    position: u32,
    number: u32,
    /// Frames that have arrived because of it.
    frames: u32,
}

impl Attempt {
    pub(super) const NONE: Attempt = Attempt { at_pool: Time::ZERO, position: 0, number: 0, frames: 0 };

    /// The attempt with this number, from 0, to upload from `position` on, whose last bit arrives at `arrives`.
    pub(super) fn begin(arrives: Time, position: u32, number: u32) -> Attempt {
        Attempt { at_pool: arrives, position, number, frames: 0 }
    }

    /// The key of the next frame that comes down for it; `of` says whose it is.
    pub(super) fn next_frame(&mut self, of: ChannelKey) -> ChannelKey {
        self.frames += 1;
        ChannelKey { position: self.position + self.frames - 1, attempt: self.number, ..of }
    }

    /// When an answer left the pool that was there for `pool` after the upload's arrival, or after the answer before.
    pub(super) fn leaves_pool(&mut self, pool: Span) -> Time {
        self.at_pool = self.at_pool + pool;
        self.at_pool
    }
}
