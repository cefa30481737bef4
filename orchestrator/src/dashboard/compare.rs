//! Two runs for the page that compares them.

use std::sync::Arc;

use serde::Serialize;

use super::State;
use super::name::RunName;
use super::refusal::Refusal;
use crate::report_data::ReportData;

/// Both reports.
#[derive(Serialize)]
pub(super) struct Compared {
    a: Arc<ReportData>,
    b: Arc<ReportData>,
}

pub(super) async fn compare(state: &State, a: &RunName, b: &RunName) -> Result<Compared, Refusal> {
    let explain = |name: &RunName, refusal| state.runs.explain(name, refusal);
    Ok(Compared {
        a: state.reports.get(a).await.map_err(|refusal| explain(a, refusal))?,
        b: state.reports.get(b).await.map_err(|refusal| explain(b, refusal))?,
    })
}
