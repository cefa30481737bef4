//! How many devices a pool carries under latency and accuracy targets, and what it runs out of, on simulations.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_analysis::Summary;
use specfleet_config::{Check, Scenario};
use specfleet_engine::load::{Arrivals, Load};
use specfleet_engine::sizing::{Bracket, Demand, Resource, Supply, binding};

use crate::error::Error;
use crate::point::{Bench, MORE, MeasuredPoint};
use crate::report::significant;
use crate::thresholds::{self, CheckResult};

/// Largest fleet that a scenario may have.
pub const MOST_DEVICES: u32 = 1_000_000;

/// One fleet that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub devices: u32,
    /// The figures that the targets are about, in their order.
    pub values: Vec<Option<f64>>,
    /// Share of the requests that were dropped, because too many waited for their device.
    pub dropped_share: f64,
    /// Share of the requests that ended without an answer.
    pub failed_share: f64,
    /// Whether all targets hold, those that nobody named included.
    pub holds: bool,
}

/// How much of a resource the fleet of the answer uses, as a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Use {
    pub resource: Resource,
    /// KV memory with every session at its end, verifier time as simulated, the slowest link by its mean rate.
    pub used: f64,
}

/// The answer for one method.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    pub method: String,
    /// Verifiers of the pool.
    pub verifiers: u16,
    /// The largest fleet found that holds all targets; 0 if one device already misses them.
    pub devices: u32,
    /// The smallest fleet that misses one; absent if none does.
    pub misses: Option<u32>,
    /// Whether the search came to its end; if not, the answer lies from `devices` on, below `misses`.
    pub complete: bool,
    /// Share of the requests that the fleet of the answer drops.
    pub dropped_share: f64,
    /// The target that the next larger fleet tried misses first; absent if the largest fleet there may be holds them all.
    pub limit: Option<String>,
    /// The figure that misses it there.
    pub limit_value: Option<f64>,
    /// The resource that stands against a larger fleet; absent if there is none, or nobody had the time to look.
    pub binding: Option<Resource>,
    /// Whether it was looked for: a fleet misses a target, and there was time.
    pub binding_sought: bool,
    /// What of each resource is used.
    pub uses: Vec<Use>,
    /// Every fleet that was tried, in order.
    pub trials: Vec<Trial>,
}

impl Capacity {
    /// Devices per verifier.
    pub fn per_verifier(&self) -> f64 {
        f64::from(self.devices) / f64::from(self.verifiers)
    }

    /// The share of the binding resource that is left.
    pub fn headroom(&self) -> Option<f64> {
        let binding = self.binding?;
        self.uses.iter().find(|one| one.resource == binding).map(|one| 1.0 - one.used)
    }
}

/// The answers for all methods.
pub struct Answers {
    pub capacities: Vec<Capacity>,
    /// What a reader must know beside the table.
    pub notes: Vec<String>,
}

impl Answers {
    /// Whether every search came to its end.
    pub fn complete(&self) -> bool {
        self.capacities.iter().all(|capacity| capacity.complete)
    }

    /// The table and the notes under it, line by line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![table(&self.capacities)];
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        let none = self.capacities.iter().filter(|one| one.binding_sought && one.binding.is_none());
        lines.extend(none.map(|capacity| {
            let (method, more) = (&capacity.method, (MORE - 1.0) * 1e2);
            format!("note: {method}: {more:.0} % more KV memory, verifier time or link alone brings no figure nearer to its target")
        }));
        if !self.complete() {
            lines.push("note: the search was broken off: fleets between the bounds are untried".to_owned());
        }
        lines
    }
}

/// Targets on requests without an answer, which no latency tells of: they hold unless a target names their metric.
const NOBODY_LEFT_OUT: [&str; 2] = ["dropped_share<=0", "failed_share<=0"];

/// The targets with those of [`NOBODY_LEFT_OUT`] after them.
fn with_defaults(targets: &[Check]) -> Vec<Check> {
    let implied = NOBODY_LEFT_OUT.iter().filter_map(|text| text.parse::<Check>().ok());
    // The count says the same as the share.
    let named = |check: &Check| targets.iter().any(|target| check.metric.starts_with(target.metric.as_str()));
    targets.iter().cloned().chain(implied.filter(|check| !named(check))).collect()
}

/// Refuses targets that no run can meet, and those on metrics that do not exist.
pub fn check_targets(targets: &[Check]) -> Result<(), Error> {
    if targets.is_empty() {
        return Err(Error::Simulation(
            "--slo: name at least one target, such as --slo 'inter_token_p95<250ms'".to_owned(),
        ));
    }
    for target in targets {
        let (name, unit) = thresholds::known("--slo", target)?;
        // No metric is ever negative, and a share is at most 1.
        let too_low = target.below && (target.limit < 0.0 || (target.limit == 0.0 && !target.or_equal));
        let most = if unit == "ratio" { 1.0 } else { f64::INFINITY };
        let too_high = !target.below && (target.limit > most || (target.limit == most && !target.or_equal));
        if too_low || too_high {
            let range = if most.is_finite() { format!("lies in 0 to {most}") } else { "is never below 0".to_owned() };
            return Err(Error::Simulation(format!("--slo: {target} can never hold: {name} {range}")));
        }
    }
    Ok(())
}

/// Searches for each method of the scenario the largest fleet of at most `most` devices that holds all targets. `say` is
/// told what is tried. Once the bench is interrupted, what is known until then is the answer.
///
/// The load per device stays what the scenario says: prompts and arrival rates grow with the fleet.
pub fn capacity(
    scenario: &Scenario,
    targets: &[Check],
    most: u32,
    bench: &Bench<'_>,
    mut say: impl FnMut(&str),
) -> Result<Answers, Error> {
    check_targets(targets)?;
    let every = with_defaults(targets);
    let settings = scenario.settings()?;
    let mut answers = Answers { capacities: Vec::new(), notes: Vec::new() };
    for method in &settings.methods {
        let mut search = Search {
            scenario,
            targets: &every,
            asked: targets.len(),
            bench,
            method: &method.name,
            bracket: Bracket::new(u32::from(settings.run.verifiers), most),
            trials: Vec::new(),
            missed: None,
            estimate: None,
            uses: Vec::new(),
            notes: Vec::new(),
        };
        let complete = search.run(&mut say)?;
        let sought = if complete { search.binding()? } else { None };
        let Bracket { holds, misses, .. } = search.bracket;
        let of_answer = search.trials.iter().find(|trial| trial.devices == holds);
        answers.capacities.push(Capacity {
            method: method.name.clone(),
            verifiers: settings.run.verifiers,
            devices: holds,
            misses,
            complete,
            dropped_share: of_answer.map_or(0.0, |trial| trial.dropped_share),
            limit: search.missed.map(|(target, _)| every[target].to_string()),
            limit_value: search.missed.and_then(|(_, value)| value),
            binding: sought.flatten(),
            binding_sought: sought.is_some(),
            uses: search.uses,
            trials: search.trials,
        });
        if answers.notes.is_empty() {
            answers.notes = search.notes;
        }
    }
    Ok(answers)
}

struct Search<'a> {
    scenario: &'a Scenario,
    /// All targets, those after the first `asked` by default.
    targets: &'a [Check],
    asked: usize,
    bench: &'a Bench<'a>,
    method: &'a str,
    bracket: Bracket,
    trials: Vec<Trial>,
    /// The first target that the smallest fleet to miss one misses, and the figure.
    missed: Option<(usize, Option<f64>)>,
    /// Where the closed form expects the answer.
    estimate: Option<f64>,
    /// Of the largest fleet that holds, or of the first one if none does.
    uses: Vec<Use>,
    notes: Vec<String>,
}

impl Search<'_> {
    /// Looks until the answer is known, or until somebody says that it is enough, which is no error.
    fn run(&mut self, say: &mut impl FnMut(&str)) -> Result<bool, Error> {
        while let Some(devices) = self.bracket.next(self.estimate) {
            match self.try_fleet(devices, say) {
                Ok(()) => {}
                Err(Error::Interrupted(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn try_fleet(&mut self, devices: u32, say: &mut impl FnMut(&str)) -> Result<(), Error> {
        let measured = self.bench.measured(&scaled(self.scenario, devices, self.method)?, None)?;
        let summary = &measured.summary;
        let held: Vec<CheckResult> =
            self.targets.iter().map(|target| thresholds::hold(target, self.method, summary)).collect();
        let share = |metric| figure(summary, self.method, metric).unwrap_or(0.0);
        let trial = Trial {
            devices,
            values: held.iter().take(self.asked).map(|held| held.value).collect(),
            dropped_share: share("dropped_share"),
            failed_share: share("failed_share"),
            holds: held.iter().all(|held| held.holds),
        };
        say(&self.line(&trial));
        let first = self.trials.is_empty();
        if let Some(missed) = held.iter().position(|held| !held.holds)
            && self.bracket.misses.is_none_or(|least| devices <= least)
        {
            self.missed = Some((missed, held[missed].value));
        }
        if first || trial.holds && devices > self.bracket.holds {
            self.uses = uses(&measured, self.method, devices);
        }
        if first {
            self.notes = notes(&measured);
            if trial.holds {
                self.expect(&measured, devices, say);
            }
        }
        self.bracket.tried(devices, trial.holds);
        self.trials.push(trial);
        Ok(())
    }

    /// From the smallest fleet, which is the cheapest trial: how many devices the resources carry by the cost model.
    fn expect(&mut self, measured: &MeasuredPoint, devices: u32, say: &mut impl FnMut(&str)) {
        let Some((demand, cost)) = demand(measured, self.method, devices).zip(measured.cost.as_ref()) else { return };
        let pool = &measured.settings.pool;
        let supply = Supply {
            verifiers: measured.settings.run.verifiers,
            kv_tokens: measured.kv_tokens,
            batch_sequences: pool.batch_sequences,
            batch_tokens: pool.batch_tokens,
            cost,
        };
        let (memory, time) = (supply.devices_by_memory(&demand), supply.devices_by_time(&demand));
        say(&format!(
            "{}: by the cost model KV memory is enough for {memory:.0} devices, verifier time for {time:.0}",
            self.method
        ));
        self.estimate = Some(memory.min(time));
    }

    /// What the smallest fleet that misses a target lacks: it is simulated again with more of each resource. `None` if no
    /// fleet misses one, or there was no time to look.
    fn binding(&mut self) -> Result<Option<Option<Resource>>, Error> {
        let Some((devices, (index, Some(value)))) = self.bracket.misses.zip(self.missed) else { return Ok(None) };
        let target = &self.targets[index];
        let scenario = scaled(self.scenario, devices, self.method)?;
        let mut with = Vec::new();
        for resource in Resource::ALL {
            let measured = match self.bench.measured(&scenario, Some(resource)) {
                Err(Error::Interrupted(_)) => return Ok(None),
                measured => measured?,
            };
            let held = thresholds::hold(target, self.method, &measured.summary);
            if let Some(figure) = held.value {
                with.push((resource, figure, held.holds));
            }
        }
        Ok(Some(binding(value, target.below, &with)))
    }

    fn line(&self, trial: &Trial) -> String {
        let shown = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.6}"));
        let values = trial.values.iter().zip(self.targets);
        let values: Vec<String> = values.map(|(value, target)| format!("{target}: {}", shown(*value))).collect();
        let lost = [("dropped", trial.dropped_share), ("failed", trial.failed_share)];
        let lost = lost.iter().filter(|(_, share)| *share > 0.0);
        let lost: String = lost.map(|(how, share)| format!(", {:.1} % {how}", share * 1e2)).collect();
        let mark = if trial.holds { "holds" } else { "misses" };
        format!("{}: {} devices {mark}  {}{lost}", self.method, trial.devices, values.join(", "))
    }
}

/// The mean of a method's metric.
fn figure(summary: &Summary, method: &str, metric: &str) -> Option<f64> {
    summary.methods.get(method).and_then(|metrics| metrics.get(metric)).map(|metric| metric.mean)
}

/// What one device of a fleet asks of the pool; `None` if it asks nothing.
fn demand(measured: &MeasuredPoint, method: &str, devices: u32) -> Option<Demand> {
    let mean = |metric| figure(&measured.summary, method, metric);
    let busy = mean("verifier_busy_share")? * f64::from(measured.settings.run.verifiers);
    let (verify, sequences) = (mean("verify_seconds")?, mean("batch_sequences")?);
    let rate = mean("fleet_tokens_per_second")? / f64::from(devices);
    Some(Demand {
        uploads_per_second: busy * sequences / (verify * f64::from(devices)),
        fed_tokens: mean("batch_tokens")? / sequences,
        // An answer grows from nothing to its length.
        session_tokens: measured.mean_prompt + measured.mean_answer / 2.0,
        active_share: (rate / mean("tokens_per_second")?).min(1.0),
    })
}

/// What a fleet uses of each resource.
fn uses(measured: &MeasuredPoint, method: &str, devices: u32) -> Vec<Use> {
    let Some(demand) = demand(measured, method, devices) else { return Vec::new() };
    let mean = |metric| figure(&measured.summary, method, metric).unwrap_or(0.0);
    let settings = &measured.settings;
    // Every session at its end, as it is where devices start together.
    let held = (measured.mean_prompt + measured.mean_answer) * demand.active_share * f64::from(devices);
    let links = settings.device.parts.iter().map(|part| part.link.mean_uplink());
    let bits = mean("uplink_bytes_per_token") * 8.0 * mean("tokens_per_second");
    let used = |resource| match resource {
        Resource::KvMemory => held / (f64::from(settings.run.verifiers) * measured.kv_tokens.max(1) as f64),
        Resource::VerifierTime => mean("verifier_busy_share"),
        Resource::Link => bits / links.clone().fold(f64::INFINITY, f64::min).max(1.0),
    };
    Resource::ALL.into_iter().map(|resource| Use { resource, used: used(resource) }).collect()
}

/// What the figures rest on: the memory, and the lengths of prompts and answers.
fn notes(measured: &MeasuredPoint) -> Vec<String> {
    let settings = &measured.settings;
    let (kv, machine) = (settings.model.verifier_kv_mebibytes, &settings.pool.profile.name);
    let memory = match &settings.pool.memory {
        None => format!("as model.verifier_kv_mebibytes says; {machine} declares no memory_bytes that would bound it"),
        Some(memory) => format!(
            "{machine} has {:.1} GB, of which pool.memory_share = {} is for weights and KV caches",
            memory.bytes as f64 * 1e-9,
            memory.share
        ),
    };
    let mut notes = vec![format!("KV memory of each verifier: {kv} MiB ({memory}), {} tokens", measured.kv_tokens)];
    notes.extend(measured.lengths.clone());
    notes.extend(measured.too_long.clone());
    notes
}

/// The scenario with another number of devices and one method, and the same load per device.
fn scaled(scenario: &Scenario, devices: u32, method: &str) -> Result<Scenario, Error> {
    let settings = scenario.settings()?;
    let mut scaled = scenario.clone();
    let prompts: u64 = settings.workload.iter().map(|part| u64::from(part.prompts)).sum();
    let each = prompts.div_ceil(u64::from(settings.run.devices)).max(1);
    let growth = f64::from(devices) / f64::from(settings.run.devices);
    let mut set = |key: &str, value: toml::Value| scaled.set_flag("capacity", key, value);
    set("run.devices", i64::from(devices).into())?;
    set("run.prompts", ((each * u64::from(devices)) as i64).into())?;
    set("run.methods", method.into())?;
    if let Load::Open { arrivals, .. } = &settings.load {
        match arrivals {
            Arrivals::Poisson { rate } | Arrivals::Gamma { rate, .. } | Arrivals::Constant { rate } => {
                set("load.rate", (rate * growth).into())?;
            }
            Arrivals::Ramp { .. } | Arrivals::Recorded { .. } => {
                return Err(Error::Simulation(
                    "capacity: the arrivals of load.pattern = \"ramp\" or \"csv\" cannot grow with the fleet; use \
                     closed, poisson, gamma or constant"
                        .to_owned(),
                ));
            }
        }
    }
    Ok(scaled)
}

/// The answers as a table.
fn table(answers: &[Capacity]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "method",
        "verifiers",
        "devices",
        "devices per verifier",
        "dropped %",
        "binding",
        "headroom %",
        "limited by",
        "fleets tried",
    ]);
    let cell = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for answer in answers {
        let devices = match (answer.complete, answer.misses) {
            (true, _) => answer.devices.to_string(),
            (false, Some(misses)) => format!("{} to {}", answer.devices, misses - 1),
            (false, None) if answer.devices == 0 => "not tried".to_owned(),
            (false, None) => format!(">= {}", answer.devices),
        };
        let limit = match (&answer.limit, answer.complete) {
            (Some(limit), _) => match answer.limit_value {
                Some(value) => format!("{limit} ({} devices: {})", answer.misses.unwrap_or(0), significant(value)),
                None => limit.clone(),
            },
            (None, true) => "nothing: the largest fleet holds".to_owned(),
            (None, false) => "not known yet".to_owned(),
        };
        table.add_row([
            Cell::new(&answer.method),
            cell(answer.verifiers.to_string()),
            cell(devices),
            cell(format!("{:.1}", answer.per_verifier())),
            cell(format!("{:.1}", answer.dropped_share * 1e2)),
            Cell::new(answer.binding.map_or(if answer.binding_sought { "none of them" } else { "" }, Resource::name)),
            cell(answer.headroom().map_or(String::new(), |left| format!("{:.0}", left.max(0.0) * 1e2))),
            Cell::new(limit),
            cell(answer.trials.len().to_string()),
        ]);
    }
    table.to_string()
}
