//! Reports of stored runs: computed one at a time, on a thread that may block, and the last few kept. Whatever else takes
//! long waits for its turn among them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use actix_web::web;
use specfleet_ledger::LedgerError;
use tokio::sync::{Mutex as Turns, Semaphore};

use super::name::RunName;
use super::refusal::PageRefusal;
use crate::error::Error;
use crate::report_data::ReportData;

const KEPT: usize = 8;

/// Questions that may wait for a report, the one that is computed included.
const WAITING: usize = 8;

/// How a report is made from a run's folder.
type Build<R> = dyn Fn(&Path) -> Result<R, Error> + Send + Sync;

/// The reports of a ledger's runs; tests keep something simpler than a [`ReportData`].
pub(super) struct Reports<R = ReportData> {
    ledger: PathBuf,
    build: Box<Build<R>>,
    waiting: Semaphore,
    turn: Arc<Turns<()>>,
    kept: Mutex<VecDeque<Kept<R>>>,
}

struct Kept<R> {
    run: RunName,
    stamp: Stamp,
    report: Arc<R>,
}

/// What changes when a run's rows do: its plain files are rewritten with them.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl<R: Send + Sync + 'static> Reports<R> {
    pub(super) fn new(ledger: PathBuf, build: Box<Build<R>>) -> Reports<R> {
        Reports { ledger, build, waiting: Semaphore::new(WAITING), turn: Arc::default(), kept: Mutex::default() }
    }

    /// The report of a run that has ended.
    pub(super) async fn get(self: &Arc<Self>, run: &RunName) -> Result<Arc<R>, PageRefusal> {
        let (reports, run) = (self.clone(), run.clone());
        self.in_turn(move |_| reports.kept_or_made(&run)).await?
    }

    /// What `make` makes of the ledger's folder, on a thread that may block, when no report is being made.
    pub(super) async fn in_turn<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, PageRefusal> {
        let _place = self.waiting.try_acquire().map_err(|_| PageRefusal::busy())?;
        let turn = self.turn.clone().lock_owned().await;
        let ledger = self.ledger.clone();
        let made = web::block(move || {
            // The turn ends with the computation, whether somebody still waits for it or not.
            let _turn = turn;
            make(&ledger)
        });
        made.await.map_err(|_| PageRefusal::stopped())
    }

    fn kept_or_made(&self, run: &RunName) -> Result<Arc<R>, PageRefusal> {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    /// What a builder has seen.
    #[derive(Default)]
    struct Seen {
        calls: AtomicU32,
        now: AtomicU32,
        most: AtomicU32,
    }

    /// Reports that say how many were made before them, slowly.
    fn slow(ledger: &Path) -> (Arc<Reports<u32>>, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let counted = seen.clone();
        let build = move |_: &Path| {
            let now = counted.now.fetch_add(1, Ordering::SeqCst) + 1;
            counted.most.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            counted.now.fetch_sub(1, Ordering::SeqCst);
            Ok(counted.calls.fetch_add(1, Ordering::SeqCst))
        };
        (Arc::new(Reports::new(ledger.to_path_buf(), Box::new(build))), seen)
    }

    fn run(ledger: &Path, number: usize) -> RunName {
        let name = format!("run-{number}");
        let folder = ledger.join(&name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("meta.json"), "{}").expect("a file");
        RunName::parse(&name).expect("a name")
    }

    #[test]
    fn one_at_a_time_and_the_last_few_are_kept() {
        let ledger = tempfile::tempdir().expect("a folder");
        let (reports, seen) = slow(ledger.path());
        actix_web::rt::System::new().block_on(async {
            // As many at the same time as may wait.
            let runs: Vec<RunName> = (0..WAITING).map(|number| run(ledger.path(), number)).collect();
            let asked = runs.iter().map(|run| {
                let (reports, run) = (reports.clone(), run.clone());
                actix_web::rt::spawn(async move { reports.get(&run).await.map(|report| *report) })
            });
            for asked in asked.collect::<Vec<_>>() {
                asked.await.expect("it ran").expect("a report");
            }
            assert_eq!((seen.calls.load(Ordering::SeqCst), seen.most.load(Ordering::SeqCst)), (WAITING as u32, 1));
            // All of them are kept; one more puts the one out that was asked for longest ago.
            reports.get(&runs[0]).await.expect("kept");
            assert_eq!(seen.calls.load(Ordering::SeqCst), WAITING as u32);
            reports.get(&run(ledger.path(), WAITING)).await.expect("made");
            reports.get(&runs[0]).await.expect("kept");
            assert_eq!(seen.calls.load(Ordering::SeqCst), WAITING as u32 + 1);
            reports.get(&runs[1]).await.expect("made again");
            assert_eq!(seen.calls.load(Ordering::SeqCst), WAITING as u32 + 2);
        });
        assert_eq!(reports.kept.lock().expect("no panic").len(), KEPT);
    }

    #[test]
    fn more_questions_than_may_wait_are_refused() {
        let ledger = tempfile::tempdir().expect("a folder");
        let (reports, seen) = slow(ledger.path());
        actix_web::rt::System::new().block_on(async {
            let asked: Vec<_> = (0..WAITING + 3)
                .map(|number| {
                    let (reports, run) = (reports.clone(), run(ledger.path(), number));
                    actix_web::rt::spawn(async move { reports.get(&run).await.map_err(|refusal| refusal.kind()) })
                })
                .collect();
            let mut busy = 0;
            for asked in asked {
                busy += u32::from(asked.await.expect("it ran") == Err("busy"));
            }
            assert_eq!(busy, 3);
        });
        assert_eq!(seen.calls.load(Ordering::SeqCst), WAITING as u32);
    }

    #[test]
    fn a_run_that_was_written_since_is_read_again() {
        let ledger = tempfile::tempdir().expect("a folder");
        let (reports, _) = slow(ledger.path());
        let run = run(ledger.path(), 0);
        assert_eq!(*reports.kept_or_made(&run).expect("made"), 0);
        assert_eq!(*reports.kept_or_made(&run).expect("kept"), 0);
        fs::write(run.folder(ledger.path()).join("meta.json"), "{\"scorers\": []}").expect("a file");
        assert_eq!(*reports.kept_or_made(&run).expect("made again"), 1);
        assert_eq!(reports.kept.lock().expect("no panic").len(), 1);
        let missing = RunName::parse("missing").expect("a name");
        assert_eq!(reports.kept_or_made(&missing).expect_err("not there").kind(), "not-found");
    }
}
