//! A method's phase in stretches of equal length: tokens, uploads, queue and batches over time.

use specfleet_engine::time::{Span, Time};

/// What happened in one stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimelineStretch {
    pub tokens: u64,
    pub uploads: u64,
    /// Σ of their times in the pool's queue, in nanoseconds.
    pub queue_nanoseconds: u64,
    /// Completed batches that started in it.
    pub batches: u64,
    /// Σ of their sequences.
    pub sequences: u64,
}

/// The stretches of a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretches {
    from: Time,
    width: u64,
    stretches: Vec<TimelineStretch>,
}

impl Stretches {
    /// `bins` stretches from `from` to `to`; fewer where the phase is shorter than that many nanoseconds.
    pub fn new(from: Time, to: Time, bins: usize) -> Stretches {
        let length = to.since(from).0.max(1);
        let width = length.div_ceil(bins.max(1) as u64).max(1);
        // The last commit lies at the very end, which belongs to the last stretch.
        let count = length.div_ceil(width).max(1) as usize;
        Stretches { from, width, stretches: vec![TimelineStretch::default(); count] }
    }

    #[inline]
    fn at(&mut self, time: Time) -> &mut TimelineStretch {
        let last = self.stretches.len() - 1;
        let index = (time.since(self.from).0 / self.width) as usize;
        &mut self.stretches[index.min(last)]
    }

    #[inline]
    pub(super) fn round(&mut self, at: Time, queue: Option<Span>) {
        let stretch = self.at(at);
        stretch.tokens += 1;
        if let Some(queue) = queue {
            stretch.uploads += 1;
            stretch.queue_nanoseconds += queue.0;
        }
    }

    pub(super) fn batch(&mut self, at: Time, sequences: u32) {
        let stretch = self.at(at);
        stretch.batches += 1;
        stretch.sequences += u64::from(sequences);
    }

    pub(super) fn merge(&mut self, other: &Stretches) {
        for (mine, others) in self.stretches.iter_mut().zip(&other.stretches) {
            mine.tokens += others.tokens;
            mine.uploads += others.uploads;
            mine.queue_nanoseconds += others.queue_nanoseconds;
            mine.batches += others.batches;
            mine.sequences += others.sequences;
        }
    }

    /// The stretches with their middle and their length, in seconds.
    pub fn iter(&self) -> impl Iterator<Item = (f64, f64, &TimelineStretch)> {
        let width = Span(self.width).seconds();
        let from = self.from.since(Time::ZERO).seconds();
        self.stretches.iter().enumerate().map(move |(i, stretch)| (from + (i as f64 + 0.5) * width, width, stretch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_in_one_stretch() {
        let mut stretches = Stretches::new(Time(1_000), Time(2_000), 4);
        for at in [0, 1_000, 1_249, 1_250, 2_000, 9_999] {
            stretches.round(Time(at), (at == 1_250).then_some(Span(7)));
        }
        stretches.batch(Time(1_600), 3);
        let mut twice = stretches.clone();
        twice.merge(&stretches);
        let found: Vec<(f64, f64, TimelineStretch)> =
            twice.iter().map(|(at, width, stretch)| (at, width, *stretch)).collect();
        assert_eq!(found.iter().map(|(.., stretch)| stretch.tokens).collect::<Vec<_>>(), [6, 2, 0, 4]);
        assert_eq!((found[1].2.uploads, found[1].2.queue_nanoseconds), (2, 14));
        assert_eq!((found[2].2.batches, found[2].2.sequences), (2, 6));
        assert!((found[0].0 - 1.125e-6).abs() < 1e-15 && (found[0].1 - 2.5e-7).abs() < 1e-15);
        assert_eq!(Stretches::new(Time(5), Time(5), 10).iter().count(), 1);
    }
}
