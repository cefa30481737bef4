//! Thresholds decided again over a stored log, without running anything \[ours\].
//!
//! Every stored round keeps what the gate looked at, and of every draft it is known what the verifier did with it or, by
//! the audit, would have done. So the engine's own gate is asked again with other thresholds, round by round, and gives
//! another upload rate, energy and deviation: **on the states that the logged run went through**. Where another decision
//! would have met a rejection, the text from there on would have been another one; [`FrontierPoint::on_policy`] says how
//! much of the log lies before that. The estimate is exact at the logged thresholds and gets worse with the distance.

use serde::Serialize;
use specfleet_engine::device::Signals;
use specfleet_engine::device::gate::{GateReason, RunningMoments, decide, needs_importance};
use specfleet_engine::method::{Gate, ImportanceRule, ImportanceStatistic, Method, Writer};
use specfleet_engine::record::{GenerationEnergy, Source};
use thiserror::Error;

use crate::pareto::pareto;
use crate::rate::{Rate, RateBuilder};

/// Share of the log that must lie before the first expected divergence for a point to count as supported.
pub const SUPPORTED_ABOVE: f64 = 0.8;

/// Share of decisions that may be unknown in a supported point.
const UNKNOWN_UP_TO: f64 = 0.02;

/// One round as the gate saw it.
#[derive(Clone, Copy, Debug)]
pub struct LoggedRound {
    pub uncertainty: f32,
    /// I(t); NaN where it was not looked at.
    pub importance: f32,
    /// What I(t) had to reach.
    pub importance_threshold: f32,
    /// Who wrote the token.
    pub source: Source,
    /// Why the gate decided as it did.
    pub reason: GateReason,
    /// min(1, y_d/x_d) by the audit, of a token that the verifier has not seen.
    pub audited: Option<f32>,
    /// Tokens that the verifier fed for the upload.
    pub work: u32,
    /// The upload's share of its batch.
    pub cloud_nanojoules: u64,
}

/// One generation of the log.
#[derive(Clone, Debug)]
pub struct LoggedGeneration {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Its rounds, in order.
    pub rounds: Vec<LoggedRound>,
    pub energy: GenerationEnergy,
    /// The part of the device's energy that went into waiting for verdicts; absent where the profile is not known.
    pub waiting_nanojoules: Option<u64>,
}

/// What is asked about importance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportanceChoice {
    /// As the run had it.
    Logged,
    Off,
    Kappa(f32),
}

/// Thresholds to try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Threshold of the gate's statistic.
    pub threshold: f32,
    /// What is asked about importance.
    pub importance: ImportanceChoice,
}

/// What the log says about some thresholds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrontierPoint {
    /// Threshold of the gate's statistic.
    pub threshold: f32,
    /// κ of the importance criterion; absent without one.
    pub kappa: Option<f32>,
    /// Uploads / committed tokens, with a 95 % interval clustered by generation.
    pub upload_rate: Rate,
    /// Estimated joules per token; absent where the log has no upload to take costs from.
    pub joules_per_token: Option<f64>,
    /// Share of the skipped tokens that the verifier would have rejected; absent where nothing is skipped, or nothing was
    /// audited.
    pub deviation_rate: Option<Rate>,
    /// The same over all tokens.
    pub deviations_per_token: Option<f64>,
    /// Share of the log that these thresholds would have come through with the same random numbers: 1 at the logged ones.
    pub on_policy: f64,
    /// Share of the decisions that the log cannot give, because importance was not looked at there; each counts as the
    /// share that passed where it was.
    pub unknown: f64,
    /// Whether the estimate stands on enough of the log.
    pub supported: bool,
    /// Whether these are the run's own thresholds.
    pub logged: bool,
    /// Whether no other supported point spends less and deviates less.
    pub front: bool,
}

/// Why a log cannot be decided again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrontierError {
    /// The method has no threshold to move.
    #[error("{method} decides by no threshold; the methods that do are u-hlm, ui-hlm, cu-hlm, entropy and max-prob")]
    NoThreshold { method: String },
    /// Only the first draft of a block is decided on, and the others' verdicts depend on it.
    #[error("{method} uploads blocks of {block} drafts: what became of the others in another block is not in the log")]
    Blocks { method: String, block: u8 },
    /// No importance was measured.
    #[error("{method} measures no importance: leave out {flag}")]
    NoImportance {
        method: String,
        /// What asked for it.
        flag: &'static str,
    },
    /// κ of `lookahead` is inside the stored threshold.
    #[error(
        "{method} looks ahead: its rounds store mean + kappa*std as one number, which no other kappa can be taken from; \
         --importance off and --uncertainty work"
    )]
    FixedKappa { method: String },
    /// The run has no rounds of the method.
    #[error("the run has no closed generation of {method}")]
    Empty { method: String },
}

/// A log that can be decided again.
#[derive(Debug)]
pub struct FrontierLog<'a> {
    method: &'a Method,
    generations: Vec<LoggedGeneration>,
    costs: Option<Costs>,
    /// Share of the drafts whose importance was looked at that passed.
    passing: f64,
    agreement: f64,
}

/// What an upload costs, by the log's own.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// nJ of a batch's share: so much per upload and so much per token fed.
    cloud_per_upload: f64,
    cloud_per_work: f64,
    /// Recorded work over the work that the walk over the log finds.
    work_scale: f64,
    radio_per_upload: f64,
    waiting_per_upload: f64,
    device_per_token: f64,
}

/// Sums of one pass over the log.
#[derive(Default)]
struct Pass {
    tokens: u64,
    uploads: f64,
    work: f64,
    survived: f64,
    unknown: u64,
    agreeing: u64,
    drafts: u64,
    deviations: f64,
    known_skips: f64,
    upload_rate: RateBuilder,
    deviation_rate: RateBuilder,
}

impl<'a> FrontierLog<'a> {
    /// Checks that the method can be decided again, and takes the costs from its log.
    pub fn new(method: &'a Method, generations: Vec<LoggedGeneration>) -> Result<FrontierLog<'a>, FrontierError> {
        let name = || method.name.clone();
        if logged_threshold(&method.gate).is_none() || method.writer == Writer::Verifier {
            return Err(FrontierError::NoThreshold { method: name() });
        }
        if method.block > 1 {
            return Err(FrontierError::Blocks { method: name(), block: method.block });
        }
        if generations.iter().all(|generation| generation.rounds.is_empty()) {
            return Err(FrontierError::Empty { method: name() });
        }
        let rounds = || generations.iter().flat_map(|generation| &generation.rounds);
        let count = |reason| rounds().filter(|round| round.reason == reason).count() as f64;
        let (important, unimportant) = (count(GateReason::Important), count(GateReason::Unimportant));
        let passing = if important + unimportant > 0.0 { important / (important + unimportant) } else { 1.0 };
        let mut log = FrontierLog { method, generations, costs: None, passing, agreement: 1.0 };
        let pass = log.pass(&method.gate);
        log.agreement = if pass.drafts > 0 { pass.agreeing as f64 / pass.drafts as f64 } else { 1.0 };
        log.costs = Costs::of(&log.generations, &pass);
        Ok(log)
    }

    /// Share of the logged decisions that deciding again at the logged thresholds repeats: 1, unless the log is not what
    /// it seems.
    pub fn agreement(&self) -> f64 {
        self.agreement
    }

    /// The run's own thresholds.
    pub fn logged(&self) -> Candidate {
        Candidate {
            threshold: logged_threshold(&self.method.gate).unwrap_or(f32::NAN),
            importance: ImportanceChoice::Logged,
        }
    }

    /// `count` thresholds that divide the logged statistics evenly, so that upload rates do not bunch; ascending, each
    /// once.
    pub fn spread(&self, count: usize) -> Vec<f32> {
        let rounds = self.generations.iter().flat_map(|generation| &generation.rounds);
        let mut values: Vec<f32> = rounds
            .filter(|round| round.source.is_draft())
            .map(|round| round.uncertainty)
            .filter(|u| u.is_finite())
            .collect();
        values.sort_by(f32::total_cmp);
        let at = |i: usize| values.get((values.len() * (i + 1) / (count + 1)).min(values.len().saturating_sub(1)));
        let stored = (0..count).filter_map(|i| at(i).copied());
        // `max-prob` stores 1 − max x and has a threshold on max x.
        let flipped = matches!(self.method.gate, Gate::MaxProbability { .. });
        let mut thresholds: Vec<f32> = stored.map(|u| if flipped { 1.0 - u } else { u }).collect();
        thresholds.sort_by(f32::total_cmp);
        thresholds.dedup();
        thresholds
    }

    /// What the log says about each candidate, and which of them nobody beats.
    pub fn points(&self, candidates: &[Candidate]) -> Result<Vec<FrontierPoint>, FrontierError> {
        let mut points = candidates.iter().map(|candidate| self.point(*candidate)).collect::<Result<Vec<_>, _>>()?;
        let standing: Vec<usize> = (0..points.len()).filter(|&index| points[index].supported).collect();
        let figures: Vec<[f64; 2]> = standing
            .iter()
            .map(|&index| {
                let point = &points[index];
                let spent = point.joules_per_token.unwrap_or(point.upload_rate.value);
                [spent, point.deviations_per_token.unwrap_or(f64::NAN)]
            })
            .collect();
        for (index, front) in standing.into_iter().zip(pareto(&figures, [false, false])) {
            points[index].front = front;
        }
        Ok(points)
    }

    fn point(&self, candidate: Candidate) -> Result<FrontierPoint, FrontierError> {
        let gate = self.gate(candidate)?;
        let pass = self.pass(&gate);
        let tokens = pass.tokens.max(1) as f64;
        let unknown = pass.unknown as f64 / tokens;
        let on_policy = pass.survived / tokens;
        let empty = Rate { value: 0.0, low: None, high: None, count: 0, clusters: 0 };
        Ok(FrontierPoint {
            threshold: candidate.threshold,
            kappa: match gate {
                Gate::Joint { importance, .. } => Some(importance.kappa),
                _ => None,
            },
            upload_rate: pass.upload_rate.rate().unwrap_or(empty),
            joules_per_token: self.costs.map(|costs| costs.joules(&pass) / tokens),
            deviation_rate: pass.deviation_rate.rate(),
            deviations_per_token: (pass.known_skips > 0.0 || pass.uploads > 0.0).then(|| pass.deviations / tokens),
            on_policy,
            unknown,
            supported: on_policy >= SUPPORTED_ABOVE && unknown <= UNKNOWN_UP_TO,
            logged: gate == self.method.gate,
            front: false,
        })
    }

    /// The method's gate with other thresholds.
    fn gate(&self, candidate: Candidate) -> Result<Gate, FrontierError> {
        let name = || self.method.name.clone();
        let threshold = candidate.threshold;
        let flag = match candidate.importance {
            ImportanceChoice::Logged => None,
            ImportanceChoice::Off => Some("--importance"),
            ImportanceChoice::Kappa(_) => Some("--kappa"),
        };
        Ok(match (self.method.gate, candidate.importance) {
            (Gate::Joint { estimator, importance, join, .. }, ImportanceChoice::Logged) => {
                Gate::Joint { estimator, threshold, importance, join }
            }
            (Gate::Joint { estimator, .. }, ImportanceChoice::Off) => Gate::Uncertainty { estimator, threshold },
            (Gate::Joint { estimator, importance, join, .. }, ImportanceChoice::Kappa(kappa)) => {
                if importance.statistic == ImportanceStatistic::Lookahead && kappa != importance.kappa {
                    return Err(FrontierError::FixedKappa { method: name() });
                }
                Gate::Joint { estimator, threshold, importance: ImportanceRule { kappa, ..importance }, join }
            }
            (gate, choice) => {
                if let Some(flag) = flag.filter(|_| choice != ImportanceChoice::Off) {
                    return Err(FrontierError::NoImportance { method: name(), flag });
                }
                match gate {
                    Gate::Uncertainty { estimator, .. } => Gate::Uncertainty { estimator, threshold },
                    Gate::Entropy { .. } => Gate::Entropy { threshold },
                    Gate::MaxProbability { .. } => Gate::MaxProbability { threshold },
                    _ => return Err(FrontierError::NoThreshold { method: name() }),
                }
            }
        })
    }

    /// Decides every draft of the log by `gate`.
    fn pass(&self, gate: &Gate) -> Pass {
        let mut pass = Pass::default();
        for generation in &self.generations {
            self.decide_again(gate, generation, &mut pass);
        }
        pass
    }

    fn decide_again(&self, gate: &Gate, generation: &LoggedGeneration, pass: &mut Pass) {
        let mut moments = RunningMoments::default();
        // Probability that the text is still the logged one.
        let mut same = 1.0_f64;
        let (mut uploads, mut deviations, mut skips) = (0.0, 0.0, 0_u64);
        // Tokens that the verifier has not been fed.
        let mut unfed = f64::from(generation.prompt_tokens);
        for round in &generation.rounds {
            pass.survived += same;
            unfed += 1.0;
            if !round.source.is_draft() {
                continue;
            }
            let signals = Signals {
                statistic: round.uncertainty,
                importance: round.importance,
                importance_threshold: round.importance_threshold,
                draft_probability: f32::NAN,
                gate_draw: f32::NAN,
            };
            // Where uncertainty alone settled it, `lookahead` never looked.
            let settled = matches!(round.reason, GateReason::Certain | GateReason::Uncertain);
            let unknown =
                settled && round.importance.is_nan() && needs_importance(gate, &signals) && self.looks_ahead();
            let decision = decide(gate, &signals, &moments, f32::NAN);
            moments.push(round.importance);
            let mut upload = if unknown { self.passing } else { f64::from(u8::from(decision.upload)) };
            pass.unknown += u64::from(unknown);
            pass.drafts += 1;
            pass.agreeing += u64::from(!unknown && decision.upload == round.reason.uploads());
            let logged = f64::from(u8::from(round.source.is_judged_draft()));
            if round.source.is_without_pool() {
                // Who found the pool out of reach finds it so again.
                upload = 0.0;
            }
            let accepted = round.source.accepted().map(|accepted| f64::from(u8::from(accepted)));
            let rejected = accepted.or(round.audited.map(f64::from)).map(|accepted| 1.0 - accepted);
            uploads += upload;
            if upload >= 0.5 {
                pass.work += unfed;
                unfed = 0.0;
            }
            if let Some(rejected) = rejected {
                same *= 1.0 - (upload - logged).abs() * rejected;
                if upload < 0.5 {
                    skips += 1;
                    deviations += rejected;
                }
                pass.deviations += (1.0 - upload) * rejected;
                pass.known_skips += 1.0 - upload;
            }
        }
        let tokens = generation.rounds.len() as u64;
        pass.tokens += tokens;
        pass.uploads += uploads;
        pass.upload_rate.push(uploads, tokens);
        pass.deviation_rate.push(deviations, skips);
    }

    fn looks_ahead(&self) -> bool {
        matches!(self.method.gate, Gate::Joint { importance, .. } if importance.statistic == ImportanceStatistic::Lookahead)
    }
}

impl Costs {
    /// From the log's own uploads; `logged` is the pass at the logged thresholds. `None` without uploads.
    fn of(generations: &[LoggedGeneration], logged: &Pass) -> Option<Costs> {
        let rounds = || generations.iter().flat_map(|generation| &generation.rounds);
        let paying = || rounds().filter(|round| round.work > 0);
        let uploads = paying().count() as f64;
        let answered = rounds().filter(|round| round.source.is_judged_draft()).count() as f64;
        if answered == 0.0 {
            return None;
        }
        let sum = |figure: &dyn Fn(&LoggedRound) -> f64| paying().map(figure).sum::<f64>();
        let work = sum(&|round| f64::from(round.work));
        let cloud: f64 = generations.iter().map(|generation| generation.energy.cloud as f64).sum();
        let squares = sum(&|round| (f64::from(round.work) - work / uploads.max(1.0)).powi(2));
        let products = sum(&|round| (f64::from(round.work) - work / uploads.max(1.0)) * round.cloud_nanojoules as f64);
        // A line whose parts are both costs; at the logged uploads and work it gives the logged energy.
        let steepest = if work > 0.0 { cloud / work } else { 0.0 };
        let slope = if squares > 0.0 { (products / squares).clamp(0.0, steepest) } else { 0.0 };
        let total = |part: &dyn Fn(&LoggedGeneration) -> f64| generations.iter().map(part).sum::<f64>();
        let waiting = total(&|generation| generation.waiting_nanojoules.unwrap_or(0) as f64);
        let device = total(&|generation| generation.energy.device as f64);
        Some(Costs {
            cloud_per_upload: (cloud - slope * work) / answered,
            cloud_per_work: slope,
            work_scale: if logged.work > 0.0 { work / logged.work } else { 1.0 },
            radio_per_upload: total(&|generation| generation.energy.radio as f64) / answered,
            waiting_per_upload: waiting / answered,
            device_per_token: (device - waiting).max(0.0) / logged.tokens.max(1) as f64,
        })
    }

    /// Estimated joules of a pass.
    fn joules(&self, pass: &Pass) -> f64 {
        let per_upload = self.cloud_per_upload + self.radio_per_upload + self.waiting_per_upload;
        let work = self.cloud_per_work * self.work_scale * pass.work;
        (per_upload * pass.uploads + work + self.device_per_token * pass.tokens as f64) * 1e-9
    }
}

/// The threshold of a gate's statistic; `None` where it has none.
fn logged_threshold(gate: &Gate) -> Option<f32> {
    match *gate {
        Gate::Uncertainty { threshold, .. }
        | Gate::Joint { threshold, .. }
        | Gate::Entropy { threshold }
        | Gate::MaxProbability { threshold } => Some(threshold),
        Gate::Never | Gate::Always | Gate::Random { .. } | Gate::Price(_) => None,
    }
}
