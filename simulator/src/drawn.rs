//! A pool whose verdicts are known when the upload is made: what fitted and recorded answers have in common.

use specfleet_engine::device::NextToken;
use specfleet_engine::id::DeviceId;
use specfleet_engine::pool::{Batch, ItemOutcome, JobKind, SessionKey};

use crate::answers::PoolAnswers;

/// What an upload carries: how its drafts will be judged, which is a fact of its key, wherever it is looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drawn {
    /// Leading drafts that will be accepted.
    pub accepted: u8,
    /// What follows the accepted drafts, if anything.
    pub next: Option<u32>,
    /// The replacement is drawn on the device.
    pub resample: bool,
    /// Index of the generation's last token in its sequence.
    pub last: u32,
    /// What the verifier writes itself before that.
    pub plain: u32,
    /// What it writes last.
    pub end: u32,
}

/// The verifier's half: what the uploads brought, by device.
#[derive(Clone, Debug)]
pub struct DrawnPool {
    pending: Vec<Drawn>,
}

impl DrawnPool {
    /// For a fleet of this many devices.
    pub fn new(devices: usize) -> DrawnPool {
        DrawnPool { pending: vec![Drawn::default(); devices] }
    }
}

impl PoolAnswers for DrawnPool {
    type Upload = Drawn;
    type Verdict = NextToken;

    fn admitted(&mut self, device: DeviceId, _: SessionKey, upload: Drawn) {
        if let Some(pending) = self.pending.get_mut(device.0 as usize) {
            *pending = upload;
        }
    }

    fn compute(
        &mut self,
        batch: &Batch,
        device: &dyn Fn(SessionKey) -> DeviceId,
        outcomes: &mut Vec<ItemOutcome>,
        verdicts: &mut Vec<NextToken>,
    ) -> bool {
        for item in &batch.items {
            let drawn = self.pending.get(device(item.session).0 as usize).copied().unwrap_or_default();
            let (accepted, next) = match (item.kind, drawn.next) {
                (JobKind::Write { .. }, _) => {
                    let token = if item.committed >= drawn.last { drawn.end } else { drawn.plain };
                    (0, NextToken::Bonus(token))
                }
                (JobKind::Judge { .. }, None) => (drawn.accepted, NextToken::None),
                (JobKind::Judge { drafts, .. }, Some(token)) if drawn.accepted == drafts => {
                    (drawn.accepted, NextToken::Bonus(token))
                }
                (JobKind::Judge { .. }, Some(token)) if drawn.resample => (drawn.accepted, NextToken::Resampled(token)),
                (JobKind::Judge { .. }, Some(token)) => (drawn.accepted, NextToken::Replacement(token)),
            };
            let known = match next {
                NextToken::Replacement(token) | NextToken::Bonus(token) => Some(token),
                NextToken::None | NextToken::Resampled(_) => None,
            };
            outcomes.push(ItemOutcome { accepted, next: known, malformed: false });
            verdicts.push(next);
        }
        true
    }

    fn delivered(&mut self, _: DeviceId, _: SessionKey, _: &ItemOutcome, _: bool) {}

    fn forget(&mut self, _: DeviceId, _: SessionKey) {}

    fn drop_cache(&mut self, _: u16, _: SessionKey) {}

    fn lose_caches(&mut self, _: u16) {}
}
