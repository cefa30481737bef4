//! Whether two runs can be compared at all, and what their scenarios set differently.

use std::collections::{BTreeMap, BTreeSet};

use specfleet_config::{ModelChoice, PrecisionChoice, Settings, short};
use specfleet_engine::method::Sampling;
use specfleet_ledger::{InputDigest, RunKind};

use crate::error::Error;
use crate::pair::{DRAFTER_VERSION, TOKENIZER, TOKENIZER_VERSION, VERIFIER_VERSION};
use crate::stored::StoredRun;
use crate::stored::inputs::differing_models;

/// The first run's word, the second's, and why they are not compared.
pub(super) fn refuse(a: &StoredRun, b: &StoredRun, why: &str) -> Error {
    Error::Question(format!("runs {} and {} cannot be compared: {why}", a.meta().run, b.meta().run))
}

/// Refuses what would compare apples with pears; the other settings that differ.
pub(super) fn alike(a: &StoredRun, b: &StoredRun) -> Result<Vec<(String, String, String)>, Error> {
    let settings = |run: &StoredRun| -> Result<Settings, Error> {
        run.settings.clone().ok_or_else(|| {
            refuse(
                a,
                b,
                &format!(
                    "the scenario of {} cannot be read any more, so nothing says that they are alike",
                    run.meta().run
                ),
            )
        })
    };
    let (first, second) = (settings(a)?, settings(b)?);
    same_prompts(a, b, (&first, &second)).map_err(|why| refuse(a, b, &why))?;
    same_models(a, b, (&first, &second)).map_err(|why| refuse(a, b, &why))?;
    let (one, other) = (a.meta().accounting, b.meta().accounting);
    if one != other {
        let why = format!(
            "they account energy and waiting differently (accounting {one} and {other}): repeat the older one with this version"
        );
        return Err(refuse(a, b, &why));
    }
    let (one, other) = (first.run.sampling, second.run.sampling);
    if one != other {
        let words = |s: Sampling| format!("temperature {}, top_k {}, top_p {}", s.temperature, s.top_k, s.top_p);
        return Err(refuse(a, b, &format!("they sample differently: {} and {}", words(one), words(other))));
    }
    Ok(differences(a, b, &first, &second))
}

/// Why two runs did not answer the same prompts, if they did not.
fn same_prompts(a: &StoredRun, b: &StoredRun, (first, second): (&Settings, &Settings)) -> Result<(), String> {
    // By name: digest, and the id of the first prompt.
    let data = |run: &StoredRun, settings: &Settings| -> BTreeMap<String, (String, u32)> {
        let recorded = run.meta().inputs.workload.iter();
        let recorded = recorded.map(|input| (input.data_set.clone(), (input.sha256.clone(), input.first_id)));
        let read = settings.workload.iter();
        let read = read.map(|part| (part.data_set.clone(), (part.sha256.clone(), part.first_id)));
        if run.meta().inputs.workload.is_empty() { read.collect() } else { recorded.collect() }
    };
    let (one, other) = (data(a, first), data(b, second));
    let names = |data: &BTreeMap<String, (String, u32)>| data.keys().cloned().collect::<Vec<_>>().join(", ");
    if names(&one) != names(&other) {
        return Err(format!("their workloads differ: {} and {}", names(&one), names(&other)));
    }
    for ((name, (then, first_id)), (now, other_id)) in one.iter().zip(other.values()) {
        if then != now {
            let (then, now) = (short(then), short(now));
            return Err(format!(
                "their prompts differ: the SHA-256 of the workload {name} is {then} in the one and {now} in the other"
            ));
        }
        if first_id != other_id {
            return Err(format!(
                "their workloads differ: {} stand in another order, so prompts have other ids",
                names(&one)
            ));
        }
    }
    Ok(())
}

/// Why two runs did not have the same models, if they did not.
fn same_models(a: &StoredRun, b: &StoredRun, (first, second): (&Settings, &Settings)) -> Result<(), String> {
    let others = |what: String| Err(format!("they ran other models: {what}"));
    let (one, other) = (&a.meta().inputs.digests, &b.meta().inputs.digests);
    if let Some((one, other)) = differing_models(one, other) {
        let (of, one, other) = (&one.of, short(&one.sha256), short(&other.sha256));
        return others(format!("the SHA-256 of the {of} is {one} in the one and {other} in the other"));
    }
    let words = |settings: &Settings, with_names: bool| {
        let word = |choice: &ModelChoice, precision: PrecisionChoice| match choice {
            _ if !with_names => precision.to_string(),
            ModelChoice::Embedded => format!("the embedded one in {precision}"),
            ModelChoice::Folder(folder) => format!("{} in {precision}", folder.display()),
        };
        let model = &settings.model;
        let drafter = word(&model.drafter, model.drafter_precision);
        format!("{drafter} with {}", word(&model.verifier, model.verifier_precision))
    };
    // Runs of earlier versions have these alone.
    for name in [DRAFTER_VERSION, VERIFIER_VERSION, TOKENIZER_VERSION] {
        let version = |run: &StoredRun| run.meta().versions.get(name).cloned();
        if let Some((one, other)) = version(a).zip(version(b)).filter(|(one, other)| one != other) {
            return others(format!("{name} is {} in the one and {} in the other", short(&one), short(&other)));
        }
    }
    // Where both runs recorded digests, these say more than folders do.
    let recorded = |digests: &[InputDigest]| digests.iter().any(|digest| digest.of == TOKENIZER);
    let with_names = !(recorded(one) && recorded(other));
    let by_key = |run: &StoredRun| {
        let key = run.meta().calibration.as_ref()?.get(0)?.get("key")?.clone();
        Some((key.get("drafter")?.clone(), key.get("verifier")?.clone()))
    };
    let other_weights = with_names && by_key(a).zip(by_key(b)).is_some_and(|(one, other)| one != other);
    if words(first, with_names) != words(second, with_names) || other_weights {
        return others(format!("{} and {}", words(first, true), words(second, true)));
    }
    Ok(())
}

/// Keys of the scenarios that differ, and live against simulated.
fn differences(a: &StoredRun, b: &StoredRun, first: &Settings, second: &Settings) -> Vec<(String, String, String)> {
    let kind = |run: &StoredRun| match &run.meta().kind {
        RunKind::Live => "live".to_owned(),
        RunKind::Simulated { fidelity, cost, .. } => format!("simulated ({fidelity}, {cost})"),
    };
    let mut rows = Vec::new();
    if kind(a) != kind(b) {
        rows.push(("kind".to_owned(), kind(a), kind(b)));
    }
    let cost = |run: &StoredRun| run.meta().pool_cost.clone();
    if cost(a) != cost(b) {
        rows.push(("batches are charged".to_owned(), cost(a), cost(b)));
    }
    let flat = |settings: &Settings| {
        let mut keys = BTreeMap::new();
        if let Ok(value) = serde_json::to_value(settings) {
            flatten("", &value, &mut keys);
        }
        keys
    };
    let (first, second) = (flat(first), flat(second));
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    for name in names {
        let of = |keys: &BTreeMap<String, String>| keys.get(name).cloned().unwrap_or_else(|| "-".to_owned());
        if of(&first) != of(&second) {
            rows.push((name.clone(), of(&first), of(&second)));
        }
    }
    rows
}

fn flatten(path: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&join(key), value, into)),
        serde_json::Value::Array(items) if items.iter().any(|item| item.is_object()) => {
            items.iter().enumerate().for_each(|(index, item)| flatten(&join(&index.to_string()), item, into));
        }
        serde_json::Value::String(text) => {
            into.insert(path.to_owned(), text.clone());
        }
        other => {
            into.insert(path.to_owned(), other.to_string());
        }
    }
}
