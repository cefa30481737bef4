//! Wall time that a command may take: it looks at a flag, which is set when the time is over or somebody has interrupted it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How late the flag may be.
const TICK: Duration = Duration::from_millis(20);

/// Units of a budget, and the seconds of each.
const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)];

static OVER: AtomicBool = AtomicBool::new(false);

/// Reads a time such as 60s or 5min.
pub fn parse(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a time above 0 with ms, s, min or h, such as 60s";
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<f64>(), text[end..].trim());
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| seconds);
    match (number, scale) {
        (Ok(number), Some(scale)) if number > 0.0 => {
            Duration::try_from_secs_f64(number * scale).map_err(|_| format!("is too long; {FORM}"))
        }
        (Ok(_), None) if unit.is_empty() => Err(format!("has no unit; {FORM}")),
        _ => Err(FORM.to_owned()),
    }
}

/// A flag that is set when the budget is over, or as soon as `interrupted` is. Without a budget that is `interrupted` itself.
/// One command has one budget.
pub fn flag(budget: Option<Duration>, interrupted: &'static AtomicBool) -> &'static AtomicBool {
    let Some(budget) = budget else { return interrupted };
    // A budget beyond what a clock can say never ends.
    let end = Instant::now().checked_add(budget);
    let watch = move || {
        while !interrupted.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
            thread::sleep(TICK);
        }
        OVER.store(true, Ordering::Relaxed);
    };
    match thread::Builder::new().name("budget".to_owned()).spawn(watch) {
        Ok(_) => &OVER,
        // Without the thread there is no budget; Ctrl-C goes on to work.
        Err(_) => interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn budgets_have_units() {
        assert_eq!(parse("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse("1.5 min"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        for text in ["60", "", "s", "0s", "-1s", "1e9s", "9999999999999999999999h", "5 m", "nans"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
