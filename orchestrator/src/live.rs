//! Figures of a run that goes on, from the same records that go into its ledger (`live.json`).

use std::collections::VecDeque;

use specfleet_engine::pool::Activity;
use specfleet_engine::record::{BatchRecord, GenerationRecord, RoundRecord};
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::{Live, LiveJoules, LiveVerifier, VerifierState};
use verifier_pool::PoolStatus;

/// What rates are taken over.
const WINDOW: Span = Span::from_millis(5_000);

/// What devices have done, in counts that add up over any division of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Generations that have ended, dropped ones included.
    pub generations: u64,
    pub tokens: u64,
    pub uploads: u64,
    /// Judged drafts that were replaced.
    pub rejected: u64,
    pub judged: u64,
    /// Energy of the ended generations' devices, in nanojoules.
    pub device: u64,
    pub radio: u64,
    /// Of their shares of the verifiers.
    pub cloud: u64,
}

impl Seen {
    /// A token was committed.
    #[inline]
    pub fn round(&mut self, record: &RoundRecord) {
        self.tokens += 1;
        self.uploads += u64::from(record.attempts());
        self.judged += u64::from(record.is_judged_draft());
        self.rejected += u64::from(record.source.accepted() == Some(false));
    }

    /// A generation ended.
    pub fn generation(&mut self, record: &GenerationRecord) {
        self.generations += 1;
        self.device += record.energy.device;
        self.radio += record.energy.radio;
        self.cloud += record.energy.cloud;
    }

    /// What others have done too.
    pub fn add(&mut self, other: &Seen) {
        self.generations += other.generations;
        self.tokens += other.tokens;
        self.uploads += other.uploads;
        self.rejected += other.rejected;
        self.judged += other.judged;
        self.device += other.device;
        self.radio += other.radio;
        self.cloud += other.cloud;
    }
}

/// What verifiers have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    sequences: u64,
    /// Batches and time in them, by verifier.
    verifiers: Vec<(u64, Span)>,
}

impl Batches {
    /// A batch ended.
    pub fn batch(&mut self, record: &BatchRecord) {
        self.sequences += u64::from(record.sequences);
        let index = usize::from(record.verifier.0);
        if self.verifiers.len() <= index {
            self.verifiers.resize(index + 1, (0, Span::ZERO));
        }
        self.verifiers[index].0 += 1;
        self.verifiers[index].1 += record.compute;
    }

    fn count(&self) -> u64 {
        self.verifiers.iter().map(|(batches, _)| batches).sum()
    }
}

/// Counts at one time.
#[derive(Clone, Debug)]
struct Sample {
    at: Time,
    tokens: u64,
    uploads: u64,
    batches: Batches,
}

/// Turns counts into what `live.json` shows.
#[derive(Debug)]
pub struct Figures {
    methods: Vec<String>,
    generations_total: u64,
    /// One per look, oldest first; the first is the newest that is a window old, or the oldest there is.
    samples: VecDeque<Sample>,
}

impl Figures {
    /// Of a run with these methods, nothing done yet.
    pub fn new(methods: Vec<String>, generations_total: u64) -> Figures {
        let start = Sample { at: Time::ZERO, tokens: 0, uploads: 0, batches: Batches::default() };
        Figures { methods, generations_total, samples: VecDeque::from([start]) }
    }

    /// The figures at `now`, which must not run backwards. `method`: the index of the one that runs.
    pub fn look(
        &mut self,
        now: Time,
        method: u16,
        seen: &Seen,
        batches: &Batches,
        status: Option<&PoolStatus>,
    ) -> Live {
        let newest = Sample { at: now, tokens: seen.tokens, uploads: seen.uploads, batches: batches.clone() };
        self.samples.push_back(newest);
        while self.samples.get(1).is_some_and(|second| now.since(second.at) >= WINDOW) {
            self.samples.pop_front();
        }
        // There is always the one that was just added.
        let since = &self.samples[0];
        let span = now.since(since.at).seconds();
        let rate = |count: u64| if span > 0.0 { count as f64 / span } else { 0.0 };
        let new_batches = batches.count() - since.batches.count();
        let new_sequences = batches.sequences - since.batches.sequences;
        let verifiers = batches.verifiers.len().max(status.map_or(0, |status| status.verifiers.len()));
        Live {
            seconds: now.since(Time::ZERO).seconds(),
            method: self.methods.get(usize::from(method)).cloned().unwrap_or_default(),
            method_index: method,
            methods: self.methods.len() as u16,
            generations: seen.generations,
            generations_total: self.generations_total,
            tokens: seen.tokens,
            uploads: seen.uploads,
            rejected: seen.rejected,
            judged: seen.judged,
            tokens_per_second: rate(seen.tokens - since.tokens),
            uploads_per_second: rate(seen.uploads - since.uploads),
            queue_jobs: status.map_or(0, |status| status.outstanding.queued_jobs),
            queue_tokens: status.map_or(0, |status| status.outstanding.queued_tokens),
            batch_sequences_mean: if new_batches > 0 { new_sequences as f64 / new_batches as f64 } else { 0.0 },
            batches: batches.count(),
            joules: LiveJoules {
                device: seen.device as f64 * 1e-9,
                radio: seen.radio as f64 * 1e-9,
                cloud: seen.cloud as f64 * 1e-9,
            },
            verifiers: (0..verifiers)
                .map(|index| {
                    let (count, busy) = batches.verifiers.get(index).copied().unwrap_or_default();
                    let (_, before) = since.batches.verifiers.get(index).copied().unwrap_or_default();
                    let status = status.and_then(|status| status.verifiers.get(index));
                    LiveVerifier {
                        // A pool has at most `u16::MAX` of them.
                        verifier: index as u16,
                        state: status.map_or(VerifierState::Idle, |status| state(status.activity)),
                        batches: count,
                        // A batch that began before the window counts whole, so the share could exceed the whole.
                        busy_share: if span > 0.0 { ((busy - before).seconds() / span).min(1.0) } else { 0.0 },
                        restarts: status.map_or(0, |status| status.restarts),
                    }
                })
                .collect(),
        }
    }
}

fn state(activity: Activity) -> VerifierState {
    match activity {
        Activity::Idle => VerifierState::Idle,
        Activity::Busy => VerifierState::Busy,
        Activity::Down => VerifierState::Down,
        Activity::Off => VerifierState::Off,
    }
}

#[cfg(test)]
mod tests {
    use specfleet_engine::id::VerifierId;
    use specfleet_engine::record::UploadCounts;
    use verifier_pool::{Outstanding, VerifierStatus};

    use super::*;

    fn batch(verifier: u16, sequences: u32, compute: Span) -> BatchRecord {
        BatchRecord {
            method: 0,
            pass: 0,
            batch: 0,
            verifier: VerifierId(verifier),
            started: Time::ZERO,
            compute,
            measured: compute,
            overrun: Span::ZERO,
            estimate: Span::ZERO,
            price: 0.0,
            sequences,
            work: 1,
            catch_up: 0,
            drafts: 1,
            cached: 0,
            nanojoules: 1,
            measured_nanojoules: 1,
            unclaimed_nanojoules: 0,
            completed: true,
        }
    }

    #[test]
    fn rates_are_of_the_last_five_seconds() {
        let mut figures = Figures::new(vec!["hlm".to_owned(), "dssd".to_owned()], 96);
        let (mut seen, mut batches) = (Seen::default(), Batches::default());
        let at = |seconds: u64| Time(seconds * 1_000_000_000);
        assert_eq!(figures.look(Time::ZERO, 0, &seen, &batches, None).tokens_per_second, 0.0);
        // 10 tokens and 2 uploads each second for 10 s, then 100 tokens each second.
        for second in 1..=20 {
            seen.tokens += if second <= 10 { 10 } else { 100 };
            seen.uploads += 2;
            let (sequences, busy) = if second <= 10 { (4, 500) } else { (8, 250) };
            batches.batch(&batch(1, sequences, Span::from_millis(busy)));
            let live = figures.look(at(second), 1, &seen, &batches, None);
            let (tokens, mean, share) = match second {
                1..=10 => (10.0, 4.0, 0.5),
                15..=20 => (100.0, 8.0, 0.25),
                _ => continue,
            };
            assert_eq!((live.tokens_per_second, live.uploads_per_second), (tokens, 2.0), "second {second}");
            assert_eq!(live.batch_sequences_mean, mean, "second {second}");
            assert_eq!((live.verifiers.len(), live.verifiers[0].busy_share), (2, 0.0));
            assert!((live.verifiers[1].busy_share - share).abs() < 1e-12, "second {second}: {live:?}");
            assert_eq!((live.batches, live.verifiers[1].batches), (second, second));
        }
        assert!(figures.samples.len() <= 7, "{}", figures.samples.len());
        // Nothing for ten seconds: the rates fall to zero.
        figures.look(at(26), 1, &seen, &batches, None);
        let live = figures.look(at(31), 1, &seen, &batches, None);
        assert_eq!((live.tokens_per_second, live.batch_sequences_mean), (0.0, 0.0));
    }

    #[test]
    fn the_pools_word_and_the_records_stand_side_by_side() {
        let mut figures = Figures::new(vec!["hlm".to_owned()], 3);
        let mut batches = Batches::default();
        // A batch that took longer than the look back.
        batches.batch(&batch(0, 2, Span::from_millis(3_000)));
        let verifier = |activity, restarts| VerifierStatus { activity, restarts };
        let status = PoolStatus {
            late: 0,
            counts: UploadCounts::default(),
            outstanding: Outstanding { queued_jobs: 3, queued_tokens: 40, running: 2 },
            sessions: 5,
            connections: 5,
            kv: Vec::new(),
            verifiers: vec![
                verifier(Activity::Busy, 0),
                verifier(Activity::Down, 2),
                verifier(Activity::Off, 0),
                verifier(Activity::Idle, 1),
            ],
        };
        let seen = Seen { generations: 1, judged: 4, rejected: 1, device: 2_500_000_000, ..Seen::default() };
        let live = figures.look(Time(1_000_000_000), 0, &seen, &batches, Some(&status));
        assert_eq!((live.method.as_str(), live.methods, live.generations_total), ("hlm", 1, 3));
        assert_eq!((live.queue_jobs, live.queue_tokens, live.judged, live.rejected), (3, 40, 4, 1));
        assert_eq!((live.joules.device, live.joules.radio), (2.5, 0.0));
        let states: Vec<(u16, VerifierState, u32)> =
            live.verifiers.iter().map(|v| (v.verifier, v.state, v.restarts)).collect();
        use VerifierState::{Busy, Down, Idle, Off};
        assert_eq!(states, [(0, Busy, 0), (1, Down, 2), (2, Off, 0), (3, Idle, 1)]);
        assert_eq!(live.verifiers[0].busy_share, 1.0);
    }
}
