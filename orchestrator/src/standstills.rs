//! What became of a live run while its whole process stood still: which method ran then, and what that makes of its figures.

use std::cell::RefCell;
use std::rc::Rc;

use device_agent::HostClock;
use specfleet_engine::disturbance::{StoodStill, Stretch, attributed};
use specfleet_engine::id::PhaseId;
use specfleet_engine::time::{Span, Time};
use specfleet_ledger::Meta;

use crate::passes;

/// When which phase ran; cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phases(Rc<RefCell<Vec<Stretch>>>);

impl Phases {
    pub(crate) fn begin(&self, phase: PhaseId, from: Time) {
        self.0.borrow_mut().push(Stretch { phase, from, to: None });
    }

    /// The phase that ran has ended.
    pub(crate) fn end(&self, at: Time) {
        if let Some(last) = self.0.borrow_mut().last_mut() {
            last.to = Some(at);
        }
    }

    /// The standstills of the run so far.
    pub(crate) fn standstills(&self, clock: &HostClock) -> Vec<StoodStill> {
        attributed(&clock.standstills(), &self.0.borrow())
    }
}

/// What a run's standstills make of it, in words: each phase that one fell into makes it invalid.
pub(crate) fn reasons(meta: &Meta) -> Vec<String> {
    let mut phases: Vec<(PhaseId, Span)> = Vec::new();
    for StoodStill { phase, length, .. } in &meta.standstills {
        let Some(phase) = phase else { continue };
        match phases.iter_mut().find(|(known, _)| known == phase) {
            Some((_, all)) => *all += *length,
            None => phases.push((*phase, *length)),
        }
    }
    let words = |(phase, length): (PhaseId, Span)| {
        let name = meta.methods.get(usize::from(phase.method)).map_or("?", |method| &method.name);
        let (label, seconds) = (passes::label(name, phase.pass, meta.passes()), length.seconds());
        format!(
            "the process stood still for {seconds:.1} s while {label} ran; that time is charged to no method, and the latencies \
             of {label} are not worth reading"
        )
    };
    phases.into_iter().map(words).collect()
}

/// The same of standstills that disturbed no method; `None` without any.
pub(crate) fn note(standstills: &[StoodStill]) -> Option<String> {
    let between = standstills.iter().filter(|stood| stood.phase.is_none());
    let length = between.fold(Span::ZERO, |all, stood| all + stood.length);
    let words = || {
        format!("the process stood still for {:.1} s between the methods, which no figure contains", length.seconds())
    };
    (length > Span::ZERO).then(words)
}
