//! What the machine that emulates devices and pool adds to every declared time \[ours\].

use std::collections::BTreeMap;

use specfleet_engine::calibration::{HostOverheads, percentiles};
use specfleet_engine::id::DeviceId;
use specfleet_engine::method::{Method, Writer};
use specfleet_engine::record::{FinishReason, RoundRecord, Source};
use specfleet_engine::time::Span;

use super::GenerationRows;

/// Measures a live run's overheads; `None` without a generation that drafted. `methods` is the run's list.
///
/// * `step`: `overrun` per draft step, over the generations that drafted. Its spread is that of the gaps between skipped
///   tokens beyond the shortest such gap of the same method and device, which is the declared time.
/// * `upload`: what `waiting` holds beyond uplink, queue, batch, compute and downlink of the uploads, per upload. Only from
///   generations that came to their end, whose uploads all got verdicts and whose device does nothing but wait
///   meanwhile (no drafting ahead, no `llm-only`). Its spread is that of the gaps before single uploads beyond what uplink,
///   queue, batch, compute, downlink and a usual draft step explain, where the device's shortest gap is known.
/// * `wake`: by how much jobs of verifiers that had nothing else to do waited longer than `max_wait`. Whether a verifier
///   was idle is not recorded; a job that waited between `max_wait` and half as long again counts as such.
/// * `batch` and the bytes: means over the answered uploads of the same methods.
pub fn fit_host(generations: &[GenerationRows<'_>], methods: &[Method], max_wait: Span) -> Option<HostOverheads> {
    let (mut steps, mut uploads) = (Mean::default(), Mean::default());
    let (mut batch, mut uplink, mut downlink) = (Mean::default(), Mean::default(), Mean::default());
    let mut wake = Mean::default();
    let waited_alone = max_wait.0..=max_wait.0.saturating_mul(3) / 2;
    let declared = shortest_gaps(generations);
    let (mut late_steps, mut late_uploads) = (Vec::new(), Vec::new());
    let mut measured = 0;
    for GenerationRows { record, rounds, .. } in generations {
        let Some(method) = methods.get(usize::from(record.id.method)) else { continue };
        if method.writer == Writer::Verifier || record.counts.draft_steps == 0 {
            continue;
        }
        measured += 1;
        steps.add(record.times.overrun.0 as f64, record.counts.draft_steps);
        let answered: Vec<&RoundRecord> = rounds.iter().filter(|round| is_answered(round)).collect();
        for round in &answered {
            batch.add(round.batch.0 as f64, 1);
            if max_wait > Span::ZERO && waited_alone.contains(&round.queue.0) {
                wake.add((round.queue - max_wait).0 as f64, 1);
            }
            downlink.add(f64::from(round.downlink_bytes), 1);
            // Both counts include what was sent again.
            let beyond = f64::from(round.uplink_bytes) - round.uplink_bits as f64 / 8.0;
            uplink.add(beyond, u64::from(round.attempts));
        }
        if let Some(&shortest) = declared.get(&(record.id.method, record.device)).filter(|_| !method.draft_ahead) {
            let usual = shortest + record.times.overrun.0 as f64 / record.counts.draft_steps as f64;
            for pair in rounds.windows(2) {
                let gap = pair[1].committed_at.since(pair[0].committed_at).0 as f64;
                if pair.iter().all(is_skipped) {
                    late_steps.push((gap - shortest).max(0.0) as f32);
                } else if is_answered(&pair[1]) && pair[1].attempts == 1 && method.block == 1 {
                    late_uploads.push((gap - usual - time_of(&pair[1]).0 as f64).max(0.0) as f32);
                }
            }
        }
        let ended = matches!(record.finish, FinishReason::Stop | FinishReason::Length);
        let all_answered = record.uploads.verdicts == record.uploads.sent && record.uploads.sent > 0;
        if ended && all_answered && !method.draft_ahead {
            let explained: u64 = answered.iter().map(|round| time_of(round).0).sum();
            uploads.add(record.times.waiting.0 as f64 - explained as f64, record.uploads.verdicts);
        }
    }
    (measured > 0).then(|| HostOverheads {
        step: steps.span(),
        step_spread: if late_steps.len() >= LEAST_GAPS { percentiles(late_steps) } else { steps.spread() },
        upload: uploads.span(),
        upload_spread: if late_uploads.len() >= LEAST_GAPS { percentiles(late_uploads) } else { uploads.spread() },
        wake: wake.span(),
        wake_spread: wake.spread(),
        own_share: OWN_SHARE,
        batch: batch.span(),
        batch_spread: batch.spread(),
        // `as` saturates: less than the nominal bits is no overhead.
        uplink_bytes: uplink.mean().round() as u32,
        downlink_bytes: downlink.mean().round() as u32,
        generations: measured,
    })
}

/// Share of events that are late by themselves \[ours\]. Chosen on a live run of 64 devices, the scenario `street` with seed
/// 2: with none, devices that one batch has answered stay in step, and `dssd`'s batches are a fifth too large; with a tenth
/// they are a sixth too small; between 0.02 and 0.05 the batches of all its methods are within 6 %.
const OWN_SHARE: f32 = 0.03;

/// Fewer gaps than this have no spread of their own; that of the generations' means stands in.
const LEAST_GAPS: usize = 200;

/// The shortest gap between two skipped tokens, in ns, by method and device.
fn shortest_gaps(generations: &[GenerationRows<'_>]) -> BTreeMap<(u16, DeviceId), f64> {
    let mut shortest: BTreeMap<(u16, DeviceId), f64> = BTreeMap::new();
    for GenerationRows { record, rounds, .. } in generations {
        for pair in rounds.windows(2).filter(|pair| pair.iter().all(is_skipped)) {
            let gap = pair[1].committed_at.since(pair[0].committed_at).0 as f64;
            let known = shortest.entry((record.id.method, record.device)).or_insert(f64::INFINITY);
            *known = known.min(gap);
        }
    }
    shortest
}

fn is_skipped(round: &RoundRecord) -> bool {
    round.source == Source::Skipped
}

fn is_answered(round: &RoundRecord) -> bool {
    round.attempts > 0 && matches!(round.source, Source::Accepted | Source::Replaced | Source::Bonus)
}

/// What the parts of an upload say it took.
fn time_of(round: &RoundRecord) -> Span {
    round.uplink + round.queue + round.batch + round.compute + round.downlink
}

/// A mean of sums, and how the means of the single sums spread.
#[derive(Debug, Default)]
struct Mean {
    sum: f64,
    count: u64,
    each: Vec<f32>,
}

impl Mean {
    fn add(&mut self, sum: f64, count: u64) {
        if count > 0 {
            self.sum += sum;
            self.count += count;
            self.each.push((sum / count as f64).max(0.0) as f32);
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    fn span(&self) -> Span {
        Span(self.mean().round() as u64)
    }

    fn spread(self) -> Vec<f32> {
        percentiles(self.each)
    }
}
