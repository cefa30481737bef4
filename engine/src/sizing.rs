//! How many devices a pool carries by each of its resources, in closed form: where the search for a capacity starts, and
//! what it says about the room that is left.

use serde::{Deserialize, Serialize};

use crate::cost::{BatchCost, BatchWork};

/// What a fleet can run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Memory for the KV caches of the verifiers.
    KvMemory,
    /// Time of the verifiers.
    VerifierTime,
    Link,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 3] = [Resource::KvMemory, Resource::VerifierTime, Resource::Link];

    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Resource::KvMemory => "KV memory",
            Resource::VerifierTime => "verifier time",
            Resource::Link => "link",
        }
    }
}

/// A figure counts as improved if it comes nearer to its target by this share of itself \[ours\].
const IMPROVED: f64 = 0.05;

/// The resource that binds a fleet which misses a target: the one of which a little more helps the most. `missed`: the
/// figure as it is, and whether it must get smaller; `with`: the figure with more of each resource, and whether that holds
/// the target. None binds if no figure comes nearer: the target is out of reach whatever the pool and the link are.
pub fn binding(missed: f64, smaller: bool, with: &[(Resource, f64, bool)]) -> Option<Resource> {
    let sign = if smaller { 1.0 } else { -1.0 };
    let gain = |figure: f64| sign * (missed - figure);
    let best = with.iter().max_by(|a, b| gain(a.1).total_cmp(&gain(b.1)))?;
    // A share close to its target has no room to improve by much, and need not.
    (best.2 || gain(best.1) > IMPROVED * missed.abs()).then_some(best.0)
}

/// The search stops where the bracket is narrower than this share of its lower end.
const PRECISION: f64 = 0.02;

/// How many times larger than the largest fleet that holds the next one may be: an estimate that is far off must not cost
/// a trial that is far too large.
const LEAP: u32 = 64;

/// The search for the largest fleet that holds its targets: the largest tried so far that does, and the smallest that does
/// not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// The largest fleet that holds; 0 before one does.
    pub holds: u32,
    /// The smallest that misses.
    pub misses: Option<u32>,
    first: u32,
    most: u32,
}

impl Bracket {
    /// Begins with `first` devices, the cheapest trial, and never tries more than `most`.
    pub fn new(first: u32, most: u32) -> Bracket {
        Bracket { holds: 0, misses: None, first: first.min(most).max(1), most }
    }

    /// Takes in a trial.
    pub fn tried(&mut self, devices: u32, holds: bool) {
        if holds {
            self.holds = self.holds.max(devices);
        } else {
            self.misses = Some(self.misses.map_or(devices, |least| least.min(devices)));
        }
    }

    /// The next fleet to try; `None` when the answer is known. `estimate`: where a closed form expects it, of which the near
    /// side is tried first, because that is the cheaper one.
    pub fn next(&self, estimate: Option<f64>) -> Option<u32> {
        let Bracket { holds, misses, first, most } = *self;
        match misses {
            None if holds == 0 => Some(first),
            None if holds >= most => None,
            None => {
                // A cast to `u32` saturates.
                let near = |share: f64| estimate.map(|devices| (devices * share) as u32).filter(|near| *near > holds);
                let wanted = near(0.75).or(near(1.25)).unwrap_or(holds.saturating_mul(2));
                Some(wanted.clamp(holds + 1, holds.saturating_mul(LEAP).clamp(holds + 1, most)))
            }
            Some(misses) if misses - holds <= 1 || f64::from(misses - holds) <= PRECISION * f64::from(holds) => None,
            // Wide brackets are halved by ratio: the larger half costs more.
            Some(misses) if holds > 0 && misses > holds.saturating_mul(4) => {
                Some((f64::from(holds) * f64::from(misses)).sqrt() as u32)
            }
            Some(misses) => Some(holds + (misses - holds) / 2),
        }
    }
}

/// The memory of one verifier replica, as its profile declares it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifierMemory {
    /// All of it, in bytes.
    pub bytes: u64,
    /// The share that weights and KV caches may take; the rest is for activations and the runtime.
    pub share: f64,
}

impl VerifierMemory {
    /// Bytes that are left for KV caches beside a model's weights; `None` if the weights alone do not fit.
    pub fn for_kv(&self, weight_bytes: f64) -> Option<u64> {
        let left = self.bytes as f64 * self.share - weight_bytes;
        (left > 0.0).then_some(left as u64)
    }
}

/// What one device asks of the pool, on average over its time in the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    pub uploads_per_second: f64,
    /// Tokens fed to the verifier per upload.
    pub fed_tokens: f64,
    /// Tokens of the device's session in the KV cache, in the mean while it writes.
    pub session_tokens: f64,
    /// Share of the time in which it has a session.
    pub active_share: f64,
}

/// The pool that is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Supply<'a> {
    pub verifiers: u16,
    /// Tokens that the KV memory of each holds.
    pub kv_tokens: u64,
    /// Most sequences of a batch.
    pub batch_sequences: u32,
    /// Most tokens of a batch.
    pub batch_tokens: u32,
    /// What a batch takes.
    pub cost: &'a BatchCost,
}

impl Supply<'_> {
    /// Devices whose sessions fit into the KV memory; beyond them caches are evicted and computed again.
    pub fn devices_by_memory(&self, demand: &Demand) -> f64 {
        let held = demand.session_tokens * demand.active_share;
        f64::from(self.verifiers) * self.kv_tokens as f64 / held.max(f64::MIN_POSITIVE)
    }

    /// Devices whose uploads the verifiers have the time for, in batches of whatever size serves the most.
    pub fn devices_by_time(&self, demand: &Demand) -> f64 {
        let per_verifier = self.batches(demand).map(|(sequences, seconds)| sequences / seconds.max(1e-12));
        let most = per_verifier.fold(0.0, f64::max);
        f64::from(self.verifiers) * most / demand.uploads_per_second.max(f64::MIN_POSITIVE)
    }

    /// Sizes of batches up to the largest one, doubling, and the seconds that each takes.
    fn batches(&self, demand: &Demand) -> impl Iterator<Item = (f64, f64)> {
        let fed = demand.fed_tokens.max(1.0);
        let most = f64::from(self.batch_sequences).min(f64::from(self.batch_tokens) / fed).max(1.0) as u32;
        let doubling =
            std::iter::successors(Some(1u32), |size| size.checked_mul(2)).take_while(move |size| *size < most);
        doubling.chain([most]).map(move |sequences| {
            let size = f64::from(sequences);
            let work = BatchWork {
                tokens: (size * fed).round() as u32,
                sequences,
                cached: (size * demand.session_tokens) as u64,
                beside: 0,
            };
            // The middle of the spread.
            (size, self.cost.span(&work, 0.5).seconds())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{ModelSize, Roofline};
    use crate::time::Span;

    const DEMAND: Demand =
        Demand { uploads_per_second: 2.0, fed_tokens: 4.0, session_tokens: 100.0, active_share: 0.5 };

    fn supply(cost: &BatchCost) -> Supply<'_> {
        Supply { verifiers: 2, kv_tokens: 1_000, batch_sequences: 16, batch_tokens: 32, cost }
    }

    #[test]
    fn memory_is_what_the_weights_leave() {
        let memory = VerifierMemory { bytes: 80_000, share: 0.9 };
        assert_eq!(memory.for_kv(12_000.0), Some(60_000));
        assert_eq!(memory.for_kv(72_000.0), None);
    }

    /// Searches where fleets up to `limit` hold; returns the answer and what was tried.
    fn search(limit: u32, most: u32, estimate: Option<f64>) -> (u32, Vec<u32>) {
        let mut bracket = Bracket::new(1, most);
        let mut tried = Vec::new();
        while let Some(devices) = bracket.next(estimate.filter(|_| bracket.holds > 0)) {
            bracket.tried(devices, devices <= limit);
            tried.push(devices);
        }
        (bracket.holds, tried)
    }

    #[test]
    fn a_search_starts_at_the_estimate_from_its_cheap_side() {
        let (answer, tried) = search(3_000, 1_000_000, Some(3_200.0));
        assert_eq!(tried[..3], [1, 64, 2_400]);
        assert!((2_940..=3_000).contains(&answer) && tried.len() <= 9, "{answer}: {tried:?}");
        // An estimate that is far off costs some trials and no wrong answer.
        for estimate in [None, Some(2.0), Some(1e12), Some(f64::INFINITY), Some(f64::NAN)] {
            let (answer, tried) = search(3_000, 1_000_000, estimate);
            assert!((2_940..=3_000).contains(&answer) && tried.len() <= 24, "{estimate:?}, {answer}: {tried:?}");
        }
    }

    #[test]
    fn a_search_keeps_to_its_bound() {
        assert_eq!(search(3_000, 100, Some(3_200.0)), (100, vec![1, 64, 100]));
        assert_eq!(search(0, 100, None), (0, vec![1]));
        assert_eq!(search(9, 1, None), (1, vec![1]));
    }

    #[test]
    fn what_helps_most_binds() {
        let with = |memory, time, link| {
            [(Resource::KvMemory, memory), (Resource::VerifierTime, time), (Resource::Link, link)]
                .map(|(resource, figure)| (resource, figure, figure > 0.95))
        };
        assert_eq!(binding(0.3, true, &with(0.3, 0.2, 0.28)), Some(Resource::VerifierTime));
        assert_eq!(binding(0.5, false, &with(0.9, 0.6, 0.5)), Some(Resource::KvMemory));
        assert_eq!(binding(0.3, true, &with(0.3, 0.31, 0.299)), None);
        // What is short of 95 % by little cannot improve by a twentieth.
        assert_eq!(binding(0.948, false, &with(0.948, 0.985, 0.949)), Some(Resource::VerifierTime));
    }

    #[test]
    fn sessions_share_the_memory() {
        let fixed = BatchCost::Fixed { span: Span::from_millis(10) };
        // Half of the devices hold 100 tokens each at any time.
        assert_eq!(supply(&fixed).devices_by_memory(&DEMAND), 40.0);
    }

    #[test]
    fn uploads_share_the_time() {
        let fixed = BatchCost::Fixed { span: Span::from_millis(10) };
        // Eight uploads of four tokens fill a batch: 800 per second and verifier.
        assert_eq!(supply(&fixed).devices_by_time(&DEMAND), 800.0);
        let model = ModelSize {
            name: "m".into(),
            parameters: 1e9,
            parameter_bytes: 2.0,
            layers: 1,
            width: 1,
            kv_bytes_per_token: 1,
            vocab: 2,
            context: 4096,
        };
        let roofline = Roofline { flops_per_second: 1e12, bytes_per_second: 1e15, overhead: Span::ZERO, model };
        // Arithmetic alone: 2e9 operations per token, 500 tokens per second, 125 uploads.
        let devices = supply(&BatchCost::Roofline(roofline)).devices_by_time(&DEMAND);
        assert!((devices - 125.0).abs() < 0.1, "{devices}");
    }
}
