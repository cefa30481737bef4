//! Faults that a run injects on purpose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use specfleet_engine::time::Span;

/// A fault and when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Fault {
    /// One verifier replica dies, with whatever it was computing.
    KillVerifier {
        /// Counted from the start of the first method.
        at: Span,
    },
}

/// The only form of a fault, for messages.
pub(crate) const FORM: &str = "kill-verifier@SECONDS, with 0 to 1000000 seconds";

/// A text that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault; valid: {FORM}")]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Fault, FaultError> {
        let error = || FaultError(text.to_owned());
        let seconds = text.strip_prefix("kill-verifier@").ok_or_else(error)?;
        let seconds: f64 = seconds.parse().map_err(|_| error())?;
        if !(0.0..=1e6).contains(&seconds) {
            return Err(error());
        }
        Ok(Fault::KillVerifier { at: Span::from_seconds(seconds) })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::KillVerifier { at } => write!(f, "kill-verifier@{}", at.seconds()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_it_prints() {
        let fault: Fault = "kill-verifier@0.5".parse().expect("valid");
        assert_eq!(fault, Fault::KillVerifier { at: Span::from_millis(500) });
        assert_eq!(fault.to_string().parse(), Ok(fault));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in ["", "kill-verifier", "kill-verifier@", "kill-verifier@-1", "kill-verifier@NaN", "reboot@1"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
