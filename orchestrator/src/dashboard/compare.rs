//! Two runs for the page that compares them.

use actix_web::HttpResponse;
use serde::Serialize;

use super::State;
use super::name::RunName;
use super::refusal::Refusal;
use crate::report_data::ReportData;

/// Both reports.
#[derive(Serialize)]
struct Compared<'a> {
    a: &'a ReportData,
    b: &'a ReportData,
}

/// Both runs' reports in one answer.
pub(super) async fn compare(state: &State, a: &RunName, b: &RunName) -> Result<HttpResponse, Refusal> {
    let explain = |name: &RunName, refusal| state.runs.explain(name, refusal);
    let first = state.reports.get(a).await.map_err(|refusal| explain(a, refusal))?;
    let second = state.reports.get(b).await.map_err(|refusal| explain(b, refusal))?;
    Ok(HttpResponse::Ok().json(Compared { a: &first, b: &second }))
}
