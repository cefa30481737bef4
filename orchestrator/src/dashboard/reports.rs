//! Reports of stored runs: computed one at a time, on a thread that may block, and the last few kept.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use actix_web::web;
use specfleet_ledger::LedgerError;
use tokio::sync::{Mutex as Turns, Semaphore};

use super::name::RunName;
use super::refusal::Refusal;
use crate::error::Error;
use crate::report_data::ReportData;

/// Reports kept.
const KEPT: usize = 8;

/// Questions that may wait for a report, the one that is computed included.
const WAITING: usize = 8;

/// How a report is made from a run's folder.
type Build = dyn Fn(&Path) -> Result<ReportData, Error> + Send + Sync;

pub(super) struct Reports {
    ledger: PathBuf,
    build: Box<Build>,
    waiting: Semaphore,
    turn: Arc<Turns<()>>,
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    run: RunName,
    stamp: Stamp,
    report: Arc<ReportData>,
}

/// What changes when a run's rows do: its plain files are rewritten with them.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Reports {
    pub(super) fn new(ledger: PathBuf) -> Reports {
        Reports::with(ledger, Box::new(|_| Err(Error::Stopped("the report"))))
    }

    fn with(ledger: PathBuf, build: Box<Build>) -> Reports {
        Reports { ledger, build, waiting: Semaphore::new(WAITING), turn: Arc::default(), kept: Mutex::default() }
    }

    /// The report of a run that has ended.
    pub(super) async fn get(self: &Arc<Self>, run: &RunName) -> Result<Arc<ReportData>, Refusal> {
        let _place = self.waiting.try_acquire().map_err(|_| Refusal::busy())?;
        let turn = self.turn.clone().lock_owned().await;
        let (reports, run) = (self.clone(), run.clone());
        let made = web::block(move || {
            // The turn ends with the computation, whether somebody still waits for it or not.
            let _turn = turn;
            reports.kept_or_made(&run)
        });
        made.await.map_err(|_| Refusal::stopped())?
    }

    fn kept_or_made(&self, run: &RunName) -> Result<Arc<ReportData>, Refusal> {
        let folder = run.folder(&self.ledger);
        let stamp = stamp(&folder)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = kept.iter().position(|kept| kept.run == *run) {
            // Out of its place: it goes to the end, or it is stale.
            if let Some(found) = kept.remove(place).filter(|kept| kept.stamp == stamp) {
                let report = found.report.clone();
                kept.push_back(found);
                return Ok(report);
            }
        }
        drop(kept);
        let report = Arc::new((self.build)(&folder)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Kept { run: run.clone(), stamp, report: report.clone() });
        Ok(report)
    }
}

fn stamp(folder: &Path) -> Result<Stamp, LedgerError> {
    let file = |name: &str| {
        let about = std::fs::metadata(folder.join(name)).ok()?;
        Some((about.modified().ok()?, about.len()))
    };
    let stamp = [file("meta.json"), file("progress.json")];
    if stamp[0].is_none() { Err(LedgerError::NotFound(folder.to_path_buf())) } else { Ok(stamp) }
}
