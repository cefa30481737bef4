//! Ending early, when somebody asks for it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::ExportError;

/// A flag that somebody sets to end an export or an import. What was written by then goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Stop<'_> {
    pub(crate) fn is_asked(self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(self) -> Result<(), ExportError> {
        if self.is_asked() { Err(ExportError::Interrupted) } else { Ok(()) }
    }
}
