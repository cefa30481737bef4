//! Values of labels: closed lists, spelled as the ledger spells them.

use specfleet_engine::device::gate::GateReason;
use specfleet_engine::pool::{Activity, RefuseReason};
use specfleet_engine::record::{FinishReason, Source};

/// Positions in a block, as text.
pub(crate) const POSITIONS: [&str; specfleet_engine::method::MAX_BLOCK] = ["0", "1", "2", "3", "4", "5", "6", "7"];

pub(crate) const REASONS: [GateReason; 10] = [
    GateReason::Never,
    GateReason::Always,
    GateReason::NotDrawn,
    GateReason::Drawn,
    GateReason::Certain,
    GateReason::Uncertain,
    GateReason::Unimportant,
    GateReason::Important,
    GateReason::TooDear,
    GateReason::Worth,
];

pub(crate) fn reason(reason: GateReason) -> &'static str {
    match reason {
        GateReason::Never => "never",
        GateReason::Always => "always",
        GateReason::NotDrawn => "not-drawn",
        GateReason::Drawn => "drawn",
        GateReason::Certain => "certain",
        GateReason::Uncertain => "uncertain",
        GateReason::Unimportant => "unimportant",
        GateReason::Important => "important",
        GateReason::TooDear => "too-dear",
        GateReason::Worth => "worth",
    }
}

pub(crate) fn decision(reason: GateReason) -> &'static str {
    if reason.uploads() { "upload" } else { "skip" }
}

pub(crate) const SOURCES: [Source; 7] = [
    Source::Skipped,
    Source::Accepted,
    Source::Replaced,
    Source::Bonus,
    Source::Verifier,
    Source::Fallback,
    Source::Refused,
];

pub(crate) fn source(source: Source) -> &'static str {
    match source {
        Source::Skipped => "skipped",
        Source::Accepted => "accepted",
        Source::Replaced => "replaced",
        Source::Bonus => "bonus",
        Source::Verifier => "verifier",
        Source::Fallback => "fallback",
        Source::Refused => "refused",
    }
}

pub(crate) const FINISHES: [FinishReason; 6] = [
    FinishReason::Stop,
    FinishReason::Length,
    FinishReason::Failed,
    FinishReason::Battery,
    FinishReason::Left,
    FinishReason::Dropped,
];

pub(crate) fn finish(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Failed => "failed",
        FinishReason::Battery => "battery",
        FinishReason::Left => "left",
        FinishReason::Dropped => "dropped",
    }
}

pub(crate) const REFUSALS: [RefuseReason; 8] = [
    RefuseReason::QueueFull,
    RefuseReason::TokensFull,
    RefuseReason::Closing,
    RefuseReason::Busy,
    RefuseReason::UnknownBase,
    RefuseReason::TooManySessions,
    RefuseReason::TooLong,
    RefuseReason::Malformed,
];

pub(crate) fn refusal(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::QueueFull => "queue-full",
        RefuseReason::TokensFull => "tokens-full",
        RefuseReason::Closing => "closing",
        RefuseReason::Busy => "busy",
        RefuseReason::UnknownBase => "unknown-base",
        RefuseReason::TooManySessions => "too-many-sessions",
        RefuseReason::TooLong => "too-long",
        RefuseReason::Malformed => "malformed",
    }
}

pub(crate) const ACTIVITIES: [Activity; 4] = [Activity::Idle, Activity::Busy, Activity::Down, Activity::Off];

pub(crate) fn activity(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "idle",
        Activity::Busy => "busy",
        Activity::Down => "down",
        Activity::Off => "off",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::to_value;

    use super::*;

    /// Each value has the ledger's own spelling, and none is there twice.
    fn check<T: serde::Serialize + Copy>(all: &[T], label: impl Fn(T) -> &'static str) {
        for (index, value) in all.iter().enumerate() {
            assert_eq!(to_value(value).expect("it serialises"), label(*value));
            assert!(all[..index].iter().all(|earlier| label(*earlier) != label(*value)));
        }
    }

    #[test]
    fn labels_are_spelled_as_the_ledger_spells_them() {
        check(&REASONS, reason);
        check(&SOURCES, source);
        check(&FINISHES, finish);
        // The matches above are complete by the compiler; these lists by their lengths.
        assert!(REASONS.iter().enumerate().all(|(index, reason)| *reason as usize == index));
        assert!(SOURCES.iter().enumerate().all(|(index, source)| *source as usize == index));
        assert!(FINISHES.iter().enumerate().all(|(index, finish)| *finish as usize == index));
        assert!(REFUSALS.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    }
}
