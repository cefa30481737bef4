//! Two runs for the page that compares them.

use std::path::Path;

use actix_web::HttpResponse;
use serde::Serialize;

use super::DashboardState;
use super::name::RunName;
use super::refusal::PageRefusal;
use crate::compare::{self, ComparedPairs, RunComparison};
use crate::cores::cores;
use crate::error::Error;
use crate::opened::OpenedRuns;
use crate::report_data::ReportData;
use crate::stored::StoredRun;

/// Both reports, and what can be said of the difference.
#[derive(Serialize)]
struct Compared<'a> {
    a: &'a ReportData,
    b: &'a ReportData,
    paired: Paired,
}

/// The runs paired by prompt, as `specfleet compare` does it.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Paired {
    /// Every metric of every method that both have.
    Of(Box<RunComparison>),
    /// Why they are not compared.
    Refused(String),
}

/// Both runs' reports and their comparison in one answer.
pub(super) async fn compare(state: &DashboardState, a: &RunName, b: &RunName) -> Result<HttpResponse, PageRefusal> {
    let explain = |name: &RunName, refusal| state.runs.explain(name, refusal);
    let first = state.reports.get(a).await.map_err(|refusal| explain(a, refusal))?;
    let second = state.reports.get(b).await.map_err(|refusal| explain(b, refusal))?;
    let paired = if a == b {
        // One process opens a store once.
        Paired::Refused("this is one and the same run".to_owned())
    } else {
        let (a, b) = (a.clone(), b.clone());
        state.reports.in_turn(move |ledger| pair(&a.folder(ledger), &b.folder(ledger))).await??
    };
    Ok(HttpResponse::Ok().json(Compared { a: &first, b: &second, paired }))
}

fn pair(a: &Path, b: &Path) -> Result<Paired, Error> {
    // The page shows damage among the notes.
    let opened = OpenedRuns::default();
    let (a, b) = (StoredRun::open(&opened, a, cores())?, StoredRun::open(&opened, b, cores())?);
    match compare::compare(&a, &b, &ComparedPairs::default()) {
        Ok(comparison) => Ok(Paired::Of(Box::new(comparison))),
        Err(Error::Question(why)) => Ok(Paired::Refused(why)),
        Err(error) => Err(error),
    }
}
