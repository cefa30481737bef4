//! What a live run's host did to it: how late emulated devices and verifiers were, how long nothing ran at all, and what
//! others took of the processors. A pure function of what was recorded says whether that is too much.
//!
//! Where the whole process did not run for [`STANDSTILL`] or longer, in a suspended machine say, that is a [`Standstill`]
//! \[ours\]: the clocks of a run leave it out, so that nobody is charged for it, and where times follow the host the phase
//! that it fell into is not worth reading.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::PhaseId;
use crate::record::{BETWEEN_METHODS, BatchRecord, GenerationRecord};
use crate::time::{Span, Time};

/// What a run recorded about its own disturbance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disturbance {
    /// Time that emulated devices were charged, over all generations.
    pub emulated: Span,
    /// How much longer it took.
    pub overrun: Span,
    /// Time that batches were charged.
    pub charged: Span,
    /// How much longer their computation took; nothing where batches are charged as measured. Each batch counts by itself,
    /// so that what a late one leaves to the next is not counted twice.
    pub batch_overrun: Span,
    /// Frames that came to an emulated pool when what they should have come before was done.
    #[serde(default)]
    pub late_arrivals: u64,
    /// Sequences that its verifiers judged.
    #[serde(default)]
    pub judged: u64,
    /// Times that nothing ran for longer than [`STALL`].
    pub stalls: u32,
    /// How long in all.
    pub stalled: Span,
    /// How long the host was watched.
    pub watched: Span,
    /// Share of the processors that other processes took; absent where the system does not say.
    pub others: Option<f64>,
    /// Share of the processors that the machine below took from this one; absent where the system does not say.
    pub stolen: Option<f64>,
}

/// From which length on a standstill counts.
pub const STALL: Span = Span::from_millis(100);

/// From which length on a gap in which the process did not run is a standstill.
pub const STANDSTILL: Span = Span::from_millis(1_000);

/// What each processor may compute in such a gap, before the process stops and after it goes on until somebody looks.
const AROUND_A_STANDSTILL: Span = Span::from_millis(200);

/// Whether a process of which nothing was seen for `gap` stood still. `used`: the processor time that it took meanwhile, of at
/// most `processors` at a time. Threads that compute on a host too busy to let anybody look are no standstill, nor is what
/// the system does not tell from that.
pub fn is_standstill(gap: Span, used: Option<Span>, processors: usize) -> bool {
    let most = AROUND_A_STANDSTILL.0.saturating_mul(processors as u64);
    gap >= STANDSTILL && used.is_some_and(|used| used.0 <= most)
}

/// The whole process did not run for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// When, by a clock that leaves standstills out: there it begins and ends at the same time.
    pub at: Time,
    /// How long it was.
    pub length: Span,
}

/// A phase of a run, from its beginning to its end; without one it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Whose phase it is.
    pub phase: PhaseId,
    pub from: Time,
    pub to: Option<Time>,
}

/// A standstill with the phase of the run that it fell into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoodStill {
    /// Whose phase it disturbed; `None` between the methods.
    pub phase: Option<PhaseId>,
    /// When, by the clock of the run, which leaves it out.
    pub at: Time,
    /// How long it was.
    pub length: Span,
}

/// Which phase each standstill fell into: the one in which it began or ended.
pub fn attributed(standstills: &[Standstill], phases: &[Stretch]) -> Vec<StoodStill> {
    let covers = |at: Time, stretch: &Stretch| stretch.from <= at && stretch.to.is_none_or(|to| at <= to);
    let attribute = |&Standstill { at, length }: &Standstill| {
        let phase = phases.iter().find(|stretch| covers(at, stretch)).map(|stretch| stretch.phase);
        StoodStill { phase, at, length }
    };
    standstills.iter().map(attribute).collect()
}

/// Something that disturbed a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Emulated devices took longer than charged.
    Devices,
    /// Emulated batches took longer than charged: verifiers contend for the processors, or the host is too slow for them.
    Verifiers,
    /// Uploads came too late for the batch that they would have been in.
    Order,
    /// The host stood still.
    Stalls,
    /// Other processes took processors.
    Others,
    /// The machine below took processors.
    Stolen,
}

impl Cause {
    /// All of them, with the share beyond which a run is noisy. An idle machine of two cores shows 9 to 12 % for the
    /// devices of the default scenario and 50 % for its verifiers; one with a core taken away 18 to 20 % and 80 %.
    pub const LIMITS: [(Cause, f64); 6] = [
        (Cause::Devices, 0.15),
        (Cause::Verifiers, 1.0),
        (Cause::Order, 0.0),
        (Cause::Stalls, 0.01),
        (Cause::Others, 0.10),
        (Cause::Stolen, 0.05),
    ];

    /// One word for lists.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Devices => "devices",
            Cause::Verifiers => "verifiers",
            Cause::Order => "order",
            Cause::Stalls => "stalls",
            Cause::Others => "others",
            Cause::Stolen => "stolen",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Cause::Devices => "devices were late by",
            Cause::Verifiers => "verifiers were late by",
            Cause::Order => "too late for their batches were",
            Cause::Stalls => "the host stood still for",
            Cause::Others => "other processes took",
            Cause::Stolen => "the machine below took",
        }
    }

    fn of_what(self) -> &'static str {
        match self {
            Cause::Devices => "of their emulated time",
            Cause::Verifiers => "of their charged time",
            Cause::Order => "of the uploads",
            Cause::Stalls => "of the run",
            Cause::Others | Cause::Stolen => "of the processors",
        }
    }
}

/// A cause beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    pub cause: Cause,
    /// How much, as a share.
    pub share: f64,
    /// Beyond which share a run is noisy.
    pub limit: f64,
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, of_what) = (self.cause.words(), self.cause.of_what());
        write!(f, "{words} {:.1} % {of_what} (limit {:.0} %)", self.share * 100.0, self.limit * 100.0)
    }
}

impl Disturbance {
    /// Takes in a generation that ended.
    pub fn generation(&mut self, record: &GenerationRecord) {
        let times = &record.times;
        self.overrun += times.overrun + times.waiting_overrun;
        self.emulated += times.draft + times.uncertainty + times.importance + times.waiting;
    }

    /// Takes in a batch; those between the methods belong to no figure.
    pub fn batch(&mut self, record: &BatchRecord) {
        if record.method == BETWEEN_METHODS {
            return;
        }
        self.judged += u64::from(record.sequences);
        self.charged += record.compute;
        self.batch_overrun += Span(record.measured.0.saturating_sub(record.compute.0));
    }

    /// Takes out standstills that are told apart: nobody was charged for them.
    pub fn leave_out(&mut self, standstills: &[StoodStill]) {
        for standstill in standstills {
            self.stalls = self.stalls.saturating_sub(1);
            self.stalled = self.stalled - standstill.length;
        }
    }

    /// How much of a cause there was, as a share; `None` where nothing says.
    pub fn share(&self, cause: Cause) -> Option<f64> {
        let ratio = |part: Span, whole: Span| (whole > Span::ZERO).then(|| part.0 as f64 / whole.0 as f64);
        match cause {
            Cause::Devices => ratio(self.overrun, self.emulated),
            Cause::Verifiers => ratio(self.batch_overrun, self.charged),
            Cause::Order => (self.judged > 0).then(|| self.late_arrivals as f64 / self.judged as f64),
            Cause::Stalls => ratio(self.stalled, self.watched),
            Cause::Others => self.others,
            Cause::Stolen => self.stolen,
        }
    }

    /// What was too much; empty for a quiet run.
    pub fn noise(&self) -> Vec<Noise> {
        let beyond = |(cause, limit)| {
            let share = self.share(cause).filter(|share| *share > limit)?;
            Some(Noise { cause, share, limit })
        };
        Cause::LIMITS.into_iter().filter_map(beyond).collect()
    }
}

/// `NOISY` with every share beyond its limit; `None` for a quiet run.
pub fn verdict(noise: &[Noise]) -> Option<String> {
    let words: Vec<String> = noise.iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| format!("NOISY: {}", words.join("; ")))
}

/// The same for a list of runs: every cause in one word.
pub fn short_verdict(noise: &[Noise]) -> Option<String> {
    let words: Vec<String> =
        noise.iter().map(|noise| format!("{} {:.0} %", noise.cause.name(), noise.share * 100.0)).collect();
    (!words.is_empty()).then(|| format!("NOISY: {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    const QUIET: Disturbance = Disturbance {
        emulated: Span::from_millis(100_000),
        overrun: Span::from_millis(1_000),
        charged: Span::from_millis(10_000),
        batch_overrun: Span::from_millis(500),
        late_arrivals: 0,
        judged: 1_000,
        stalls: 1,
        stalled: Span::from_millis(150),
        watched: Span::from_millis(60_000),
        others: Some(0.02),
        stolen: Some(0.0),
    };

    #[test]
    fn a_quiet_run_says_nothing() {
        assert_eq!(QUIET.noise(), []);
        assert_eq!(Disturbance::default().noise(), [], "nothing recorded, nothing said");
    }

    #[test]
    fn each_cause_is_named_with_its_share_and_its_limit() {
        let loaded = Disturbance {
            overrun: Span::from_millis(23_400),
            batch_overrun: Span::from_millis(14_000),
            stalled: Span::from_millis(3_000),
            others: Some(0.497),
            stolen: Some(0.061),
            ..QUIET
        };
        expect!["NOISY: devices were late by 23.4 % of their emulated time (limit 15 %); verifiers were late by 140.0 % of their charged time (limit 100 %); the host stood still for 5.0 % of the run (limit 1 %); other processes took 49.7 % of the processors (limit 10 %); the machine below took 6.1 % of the processors (limit 5 %)"]
            .assert_eq(&verdict(&loaded.noise()).expect("five causes"));
        expect!["NOISY: devices 23 %, verifiers 140 %, stalls 5 %, others 50 %, stolen 6 %"]
            .assert_eq(&short_verdict(&loaded.noise()).expect("five causes"));
    }

    #[test]
    fn what_the_system_does_not_say_is_no_cause() {
        let unknown = Disturbance { others: None, stolen: None, charged: Span::ZERO, ..QUIET };
        assert_eq!(unknown.share(Cause::Others), None);
        assert_eq!(unknown.share(Cause::Verifiers), None, "batches that are charged as measured are never late");
        assert_eq!((unknown.noise(), verdict(&[]), short_verdict(&[])), (Vec::new(), None, None));
    }

    #[test]
    fn a_long_gap_without_computing_is_a_standstill() {
        let seconds = |seconds: f64| Span::from_seconds(seconds);
        let after = |gap: f64, used: f64, processors| is_standstill(seconds(gap), Some(seconds(used)), processors);
        assert!(after(6.0, 0.0, 1) && after(1.0, 0.0, 1), "nothing ran");
        assert!(!after(0.999, 0.0, 1), "too short: that counts for NOISY");
        assert!(after(6.0, 0.35, 2), "both computed until it stopped and when it went on");
        assert!(!after(1.5, 1.4, 2), "one of its threads computed, and the host let nobody look");
        assert!(!after(6.0, 9.0, 2) && after(6.0, 9.0, 64), "what counts is what they could have done");
        assert!(!is_standstill(seconds(6.0), None, 2), "what the system does not say is no standstill");
    }

    #[test]
    fn a_standstill_belongs_to_the_phase_that_it_touches() {
        let phase = |method| PhaseId { method, pass: 0 };
        let phases = [
            Stretch { phase: phase(0), from: Time(10), to: Some(Time(20)) },
            Stretch { phase: phase(1), from: Time(30), to: None },
        ];
        let at = |at| Standstill { at: Time(at), length: STANDSTILL };
        let found = attributed(&[at(5), at(10), at(15), at(20), at(25), at(30), at(99)], &phases);
        let methods: Vec<_> = found.iter().map(|stood| stood.phase.map(|phase| phase.method)).collect();
        assert_eq!(methods, [None, Some(0), Some(0), Some(0), None, Some(1), Some(1)]);
        let mut seen = Disturbance { stalls: 8, stalled: Span::from_millis(7_150), ..QUIET };
        seen.leave_out(&found);
        assert_eq!((seen.stalls, seen.stalled), (1, Span::from_millis(150)), "the short ones stay");
    }

    proptest! {
        #[test]
        fn beyond_the_limit_and_only_then(permille in 0u64..3_000) {
            for (cause, limit) in Cause::LIMITS {
                let share = permille as f64 / 1_000.0;
                let part = Span(permille * 1_000_000);
                let whole = Span(1_000_000_000);
                let seen = match cause {
                    Cause::Devices => Disturbance { overrun: part, emulated: whole, ..Disturbance::default() },
                    Cause::Verifiers => Disturbance { batch_overrun: part, charged: whole, ..Disturbance::default() },
                    Cause::Order => Disturbance { late_arrivals: permille, judged: 1_000, ..Disturbance::default() },
                    Cause::Stalls => Disturbance { stalled: part, watched: whole, ..Disturbance::default() },
                    Cause::Others => Disturbance { others: Some(share), ..Disturbance::default() },
                    Cause::Stolen => Disturbance { stolen: Some(share), ..Disturbance::default() },
                };
                let found = seen.noise();
                prop_assert_eq!(found.len() == 1, share > limit);
                prop_assert!(found.iter().all(|noise| noise.cause == cause && (noise.share - share).abs() < 1e-12));
            }
        }
    }
}
