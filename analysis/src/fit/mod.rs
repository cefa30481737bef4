//! What a run says about the machines and the models it ran on: the fits that a simulation is calibrated with. Pure
//! functions of stored rows.

mod batch_cost;
mod distributions;
mod host;
mod least_squares;

pub use batch_cost::{FitReport, fit_batch_cost};
pub use distributions::{fit_distributions, refit_line};
pub use host::fit_host;

use specfleet_engine::record::{AuditRecord, GenerationRecord, RoundRecord};

/// The rows of one generation.
#[derive(Clone, Copy, Debug)]
pub struct GenerationRows<'a> {
    pub record: &'a GenerationRecord,
    /// All its rounds, in order.
    pub rounds: &'a [RoundRecord],
    /// Its audit, if it was audited.
    pub audit: Option<&'a AuditRecord>,
}
