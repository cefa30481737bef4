//! How many devices a pool carries under latency and accuracy targets: bracket, then bisect, on simulations.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use specfleet_config::{Check, Scenario};
use specfleet_engine::load::{Arrivals, Load};

use crate::error::Error;
use crate::point::Bench;
use crate::thresholds::{self, Held};

/// Largest fleet that a scenario may have.
const MOST: u32 = 1_000_000;

/// The search ends when the bracket is narrower than this share of its lower end.
const PRECISION: f64 = 0.02;

/// One fleet that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Its size.
    pub devices: u32,
    /// The figures that the targets are about, in their order.
    pub values: Vec<Option<f64>>,
    /// Whether all targets hold.
    pub holds: bool,
}

/// The answer for one method.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    /// The method.
    pub method: String,
    /// Verifiers of the pool.
    pub verifiers: u16,
    /// The largest fleet found that holds all targets; 0 if one device already misses them.
    pub devices: u32,
    /// The target that the next larger fleet tried misses first; absent if the largest fleet there is holds them all.
    pub limit: Option<String>,
    /// Every fleet that was tried, in order.
    pub trials: Vec<Trial>,
}

impl Capacity {
    /// Devices per verifier.
    pub fn per_verifier(&self) -> f64 {
        f64::from(self.devices) / f64::from(self.verifiers)
    }
}

/// Refuses targets that no run can meet, and those on metrics that do not exist.
pub fn check_targets(targets: &[Check]) -> Result<(), Error> {
    if targets.is_empty() {
        return Err(Error::Simulation(
            "--slo: name at least one target, such as --slo 'inter_token_p95<250ms'".to_owned(),
        ));
    }
    for target in targets {
        let name = thresholds::metric("--slo", &target.metric)?;
        let unit = specfleet_analysis::metric_names().find(|(known, _)| *known == name).map_or("", |(_, unit)| unit);
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

/// Searches for each method of the scenario. `say` is told of each fleet that was tried.
///
/// The load per device stays what the scenario says: prompts and arrival rates grow with the fleet.
pub fn capacity(
    scenario: &Scenario,
    targets: &[Check],
    bench: &Bench<'_>,
    mut say: impl FnMut(&str, &Trial),
) -> Result<Vec<Capacity>, Error> {
    check_targets(targets)?;
    let settings = scenario.settings()?;
    let mut answers = Vec::new();
    for method in &settings.methods {
        let mut search = Search { scenario, targets, bench, method: &method.name, trials: Vec::new(), missed: None };
        let devices = search.run(&mut say)?;
        answers.push(Capacity {
            method: method.name.clone(),
            verifiers: settings.run.verifiers,
            devices,
            limit: search.missed,
            trials: search.trials,
        });
    }
    Ok(answers)
}

struct Search<'a> {
    scenario: &'a Scenario,
    targets: &'a [Check],
    bench: &'a Bench<'a>,
    method: &'a str,
    trials: Vec<Trial>,
    /// The first target that the smallest fleet so far to miss one misses.
    missed: Option<String>,
}

impl Search<'_> {
    fn run(&mut self, say: &mut impl FnMut(&str, &Trial)) -> Result<u32, Error> {
        let (mut holds, mut misses) = (0, None);
        let mut next = u32::from(self.scenario.settings()?.run.verifiers);
        while misses.is_none() && holds < MOST {
            if self.holds(next, say)? {
                holds = next;
                next = next.saturating_mul(2).min(MOST);
            } else {
                misses = Some(next);
            }
        }
        let Some(mut misses) = misses else { return Ok(holds) };
        while misses - holds > 1 && f64::from(misses - holds) > PRECISION * f64::from(holds) {
            let middle = holds + (misses - holds) / 2;
            if self.holds(middle, say)? {
                holds = middle;
            } else {
                misses = middle;
            }
        }
        Ok(holds)
    }

    fn holds(&mut self, devices: u32, say: &mut impl FnMut(&str, &Trial)) -> Result<bool, Error> {
        let scenario = scaled(self.scenario, devices, self.method)?;
        let summary = self.bench.figures(&scenario)?;
        let held: Vec<Held> =
            self.targets.iter().map(|target| thresholds::hold(target, self.method, &summary)).collect();
        let trial = Trial {
            devices,
            values: held.iter().map(|held| held.value).collect(),
            holds: held.iter().all(|held| held.holds),
        };
        say(self.method, &trial);
        if let Some(missed) = held.iter().find(|held| !held.holds) {
            self.missed = Some(missed.check.clone());
        }
        let holds = trial.holds;
        self.trials.push(trial);
        Ok(holds)
    }
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
pub fn table(answers: &[Capacity]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["method", "verifiers", "devices", "devices per verifier", "limited by", "fleets tried"]);
    let cell = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for answer in answers {
        table.add_row([
            Cell::new(&answer.method),
            cell(answer.verifiers.to_string()),
            cell(answer.devices.to_string()),
            cell(format!("{:.1}", answer.per_verifier())),
            Cell::new(answer.limit.as_deref().unwrap_or("nothing: the largest fleet holds")),
            cell(answer.trials.len().to_string()),
        ]);
    }
    table.to_string()
}
