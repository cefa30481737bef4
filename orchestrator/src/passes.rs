//! The order of a run's phases: pass by pass, in each every method once.

use specfleet_engine::id::PhaseId;

/// The phases of one pass. Every pass begins with the next method, so that none always has the quiet start of a run or
/// the heat of its end.
pub(crate) fn of_pass(pass: u16, methods: usize) -> impl Iterator<Item = PhaseId> {
    // A run has at most as many methods as there are presets.
    (0..methods).map(move |turn| PhaseId { method: ((turn + usize::from(pass)) % methods) as u16, pass })
}

/// What a progress bar calls a phase.
pub(crate) fn label(method: &str, pass: u16, passes: u16) -> String {
    if passes > 1 { format!("{method} {}/{passes}", pass + 1) } else { method.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_every_place() {
        let order = |pass| of_pass(pass, 3).map(|phase| phase.method).collect::<Vec<_>>();
        assert_eq!(
            [order(0), order(1), order(2), order(3)],
            [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]].map(Vec::from)
        );
        assert!(of_pass(2, 3).all(|phase| phase.pass == 2));
    }

    #[test]
    fn passes_are_counted_from_one_for_people() {
        assert_eq!((label("hlm", 0, 1), label("hlm", 0, 5)), ("hlm".to_owned(), "hlm 1/5".to_owned()));
    }
}
