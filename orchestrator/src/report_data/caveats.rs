//! What a reader of a report has to know beside its figures: why they cannot be trusted, and what is missing.

use specfleet_analysis::PoolAccount;
use specfleet_ledger::RunState;

use super::MethodReport;
use crate::results::{shortfalls, unpaid};
use crate::standstills;
use crate::stored::StoredRun;
use crate::work::all_asked;

/// Why the run's figures cannot be trusted, beside books that do not close.
pub(super) fn problems(run: &StoredRun) -> Vec<String> {
    let mut problems = run.damage();
    // Rows that are kept only in part say nothing about what is missing.
    let whole = run.keep_every() == 1;
    let asked = run.settings.as_ref().filter(|settings| whole && all_asked(settings));
    let phases = run.meta().methods.len() * usize::from(run.meta().passes());
    let asked = asked.and(run.requests()).map_or(0, |requests| requests as usize * phases);
    let open = if whole { run.reader.open_generations().len() } else { 0 };
    problems.extend(shortfalls(asked.saturating_sub(run.generations.len()), open, &run.meta().state));
    if problems.is_empty() {
        let mut account = PoolAccount::default();
        run.generations.iter().for_each(|generation| account.generation(generation));
        run.reader.batches().flatten().for_each(|batch| account.batch(&batch));
        problems = unpaid(run.meta(), &account);
    }
    problems.extend(standstills::reasons(run.meta()));
    problems
}

/// Says which scores are missing, and the command that adds them.
pub(super) fn missing(run: &StoredRun, methods: &[MethodReport], notes: &mut Vec<String>) {
    if !run.has_text() {
        notes.push("the answers were drawn from distributions: there is no text, and no accuracy of one".to_owned());
    } else {
        notes.extend(run.scores.notes(&run.meta().run));
    }
    notes.extend(unaudited(run, methods));
    if run.has_text() && !run.meta().methods.iter().any(|method| method.name == "llm-only") {
        notes.push(
            "the run has no llm-only: token agreement and first divergence are missing; add it to run.methods"
                .to_owned(),
        );
    }
}

/// Says of which methods the filter's damage is not known, and why.
fn unaudited(run: &StoredRun, methods: &[MethodReport]) -> Option<String> {
    let skips = |method: &&MethodReport| method.metrics.get("upload_rate").is_some_and(|rate| rate.mean < 1.0);
    let audited = |name: &str| run.audits.iter().any(|audit| run.method_name(audit.id.method) == name);
    let missing: Vec<&str> = methods.iter().filter(skips).map(|method| method.name.as_str()).collect();
    let missing: Vec<&str> = missing.into_iter().filter(|name| !audited(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let why = match run.settings.as_ref().map(|settings| settings.audit) {
        Some(false) => "audit.enabled = false".to_owned(),
        _ if run.meta().state == RunState::Completed => "its rows do not say why".to_owned(),
        _ => "a method is audited at the end of its phase, and the run ended before".to_owned(),
    };
    Some(format!("not audited: {} ({why}): their filters' damage is not known", missing.join(", ")))
}
