//! The radio link: how long a payload takes and for how long the radio is on (method.md §6, declared).
//!
//! Within a coherence block the rate is constant, R = B·log2(1 + SNR·|h|²); |h|² is drawn per block from a keyed
//! generator. The key is the upload that the payload belongs to ([`ChannelKey`]) and the number of the block within it,
//! never the clock: every method and every run meets the same channel, however late its host is. A payload longer than a
//! block drains across blocks. A block whose rate is below `min_bits_per_second` is an outage: the radio is on, nothing
//! gets through, and the bits are sent again in the next block. Only the rates of a recorded trace follow the clock.

use serde::{Deserialize, Serialize};

use crate::random::{DrawKey, Draws, Purpose};
use crate::time::{Span, Time};

/// Small-scale fading of the channel's power gain |h|², with mean 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Fading {
    None,
    Rayleigh,
    /// A line of sight with power K times that of the scattered paths.
    Rician {
        /// K as a ratio, not in dB.
        k: f64,
    },
}

/// How fast the link is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum LinkRate {
    /// Shannon rate under block fading.
    Fading {
        /// Uplink bandwidth B in Hz.
        uplink_hz: f64,
        /// Downlink bandwidth in Hz.
        downlink_hz: f64,
        /// Mean signal-to-noise ratio in dB (path loss already taken off, see [`path_loss_snr_db`]).
        snr_db: f64,
        fading: Fading,
        /// Length of a coherence block.
        coherence: Span,
        /// Below this rate a block is an outage.
        min_bits_per_second: f64,
    },
    /// Rates from a recorded trace, repeated when it ends.
    Trace {
        /// Length of one step of the trace.
        step: Span,
        /// Uplink bits per second, one figure per step; at least one is positive.
        uplink: Vec<f64>,
        /// Downlink bits per second, the same length.
        downlink: Vec<f64>,
    },
}

/// A link profile: rate, propagation and the radio's power.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkProfile {
    /// Name, as in the scenario.
    pub name: String,
    /// Where its numbers come from.
    pub source: String,
    /// Whether the driver sleeps the times below. False on a real network, whose times happen by themselves; then only
    /// the radio's energy is modelled from them.
    pub emulated: bool,
    /// How fast it is.
    pub rate: LinkRate,
    /// Round-trip time of an empty packet.
    pub round_trip: Span,
    /// Radio power while sending, in watts.
    pub transmit_watts: f64,
    /// Radio power while receiving, in watts.
    pub receive_watts: f64,
}

impl LinkProfile {
    /// The link that carries `factor` times as many bits per second, with as much shorter a round trip.
    pub fn faster(&self, factor: f64) -> LinkProfile {
        let times = |rates: &[f64]| rates.iter().map(|rate| rate * factor).collect();
        let rate = match &self.rate {
            LinkRate::Fading { uplink_hz, downlink_hz, snr_db, fading, coherence, min_bits_per_second } => {
                LinkRate::Fading {
                    uplink_hz: uplink_hz * factor,
                    downlink_hz: downlink_hz * factor,
                    snr_db: *snr_db,
                    fading: *fading,
                    coherence: *coherence,
                    min_bits_per_second: min_bits_per_second * factor,
                }
            }
            LinkRate::Trace { step, uplink, downlink } => {
                LinkRate::Trace { step: *step, uplink: times(uplink), downlink: times(downlink) }
            }
        };
        let round_trip = Span::from_seconds(self.round_trip.seconds() / factor);
        LinkProfile { rate, round_trip, ..self.clone() }
    }

    /// What an empty packet takes one way.
    pub fn propagation(&self) -> Span {
        Span(self.round_trip.0 / 2)
    }

    /// Whether the rate follows the clock: a recorded trace of more than one step does, whatever is sent.
    pub fn follows_clock(&self) -> bool {
        matches!(&self.rate, LinkRate::Trace { uplink, .. } if uplink.len() > 1)
    }

    /// Bits per second of the uplink at its mean: without fading, or over the whole trace.
    pub fn mean_uplink(&self) -> f64 {
        match &self.rate {
            LinkRate::Fading { uplink_hz, snr_db, .. } => uplink_hz * (1.0 + 10f64.powf(snr_db / 10.0)).log2(),
            LinkRate::Trace { uplink, .. } => uplink.iter().sum::<f64>() / uplink.len().max(1) as f64,
        }
    }
}

/// Mean SNR in dB after log-distance path loss:
/// P_tx − (L_0 + 10·n·log10(d/1 m)) − N.
pub fn path_loss_snr_db(
    transmit_dbm: f64,
    reference_loss_db: f64,
    exponent: f64,
    distance_m: f64,
    noise_dbm: f64,
) -> f64 {
    transmit_dbm - (reference_loss_db + 10.0 * exponent * distance_m.max(1.0).log10()) - noise_dbm
}

/// Which way a payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// What the fading of one payload is drawn from \[ours\].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelKey {
    /// Seed of the run.
    pub seed: u64,
    /// Line number of the prompt in its workload.
    pub prompt: u32,
    /// Repetition of the same prompt.
    pub repetition: u16,
    /// Index in the sequence of the first token that the upload is about; for each further verdict of the same upload
    /// one more.
    pub position: u32,
    /// Which attempt to send it, from 0.
    pub attempt: u32,
}

impl ChannelKey {
    /// The draws of one coherence block of the payload.
    fn draws(self, direction: Direction, block: u32) -> Draws {
        let purpose = match direction {
            Direction::Up => Purpose::Uplink,
            Direction::Down => Purpose::Downlink,
        };
        // A payload drains within `MAX_BLOCKS` blocks, which 17 bits hold.
        let rejections = self.attempt << 17 | block;
        let ChannelKey { seed, prompt, repetition, position, .. } = self;
        DrawKey { seed, prompt, repetition, position, rejections }.draws(purpose)
    }
}

/// What sending a payload took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// When the last bit has arrived: queueing, drain time and half a round trip after the request.
    pub arrives: Time,
    /// How long the radio was on.
    pub airtime: Span,
    /// SNR of the first block as a ratio; NaN for a trace.
    pub snr: f64,
    /// Blocks lost to outage.
    pub outages: u32,
}

/// What sending a payload would take at the present rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SendingCost {
    /// Energy of the radio.
    pub(super) joules: f64,
    /// Time until the last bit has arrived, propagation included.
    pub(super) seconds: f64,
}

/// The state of one device's link: until when each direction is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkState {
    up_free: Time,
    down_free: Time,
}

/// A payload gives up hoping for a better channel after this many blocks and counts as arrived, so that a mistaken
/// profile cannot hang a run; with the shipped profiles the chance of getting here is nil.
const MAX_BLOCKS: u32 = 100_000;

impl LinkState {
    /// Sends `bits` at `now`, behind whatever the same direction still has to send.
    pub(crate) fn transfer(
        &mut self,
        profile: &LinkProfile,
        key: ChannelKey,
        direction: Direction,
        now: Time,
        bits: u64,
    ) -> Transfer {
        let free = match direction {
            Direction::Up => &mut self.up_free,
            Direction::Down => &mut self.down_free,
        };
        let start = now.max(*free);
        let drained = profile.drain(key, direction, start, bits);
        let end = start + drained.airtime;
        if profile.emulated {
            *free = end;
        }
        let arrives = if profile.emulated { end + profile.propagation() } else { now };
        Transfer { arrives, ..drained }
    }
}

impl LinkProfile {
    /// Drains `bits` from `start` on, block by block. `arrives` is left at the end of the last bit.
    fn drain(&self, key: ChannelKey, direction: Direction, start: Time, bits: u64) -> Transfer {
        let mut left = bits as f64;
        let mut at = start;
        let mut first_snr = f64::NAN;
        let mut outages = 0;
        for block_number in 0..MAX_BLOCKS {
            let (rate, snr, block_ends) = self.block(key, direction, (start, block_number), at);
            if block_number == 0 {
                first_snr = snr;
            }
            let room = block_ends.since(at);
            if rate > 0.0 {
                let needed = Span::from_seconds(left / rate);
                if needed <= room {
                    at = at + needed;
                    break;
                }
                left -= rate * room.seconds();
            } else {
                outages += 1;
            }
            at = block_ends;
        }
        Transfer { arrives: at, airtime: at.since(start), snr: first_snr, outages }
    }

    /// What sending `bits` from `at` on would take at the rate of the first coherence block, were it to stay so; a block
    /// that is an outage counts as the lowest rate.
    pub(super) fn sending_now(&self, key: ChannelKey, direction: Direction, at: Time, bits: u64) -> SendingCost {
        let (rate, _, _) = self.block(key, direction, (at, 0), at);
        let rate = if rate > 0.0 { rate } else { self.lowest_rate(direction) };
        let airtime = bits as f64 / rate;
        let propagation = self.propagation().seconds();
        SendingCost { joules: airtime * self.transmit_watts, seconds: airtime + propagation }
    }

    /// The lowest rate at which anything gets through, in bits per second.
    fn lowest_rate(&self, direction: Direction) -> f64 {
        match &self.rate {
            LinkRate::Fading { min_bits_per_second, .. } => *min_bits_per_second,
            LinkRate::Trace { uplink, downlink, .. } => {
                let rates = if direction == Direction::Up { uplink } else { downlink };
                rates.iter().copied().filter(|&rate| rate > 0.0).fold(f64::INFINITY, f64::min)
            }
        }
    }

    /// Rate in bits per second (0 in an outage), SNR as a ratio (NaN for a trace) and end of the block that `at` lies in: the
    /// `number`th of a payload that began at `start`.
    fn block(&self, key: ChannelKey, direction: Direction, (start, number): (Time, u32), at: Time) -> (f64, f64, Time) {
        match &self.rate {
            LinkRate::Fading { uplink_hz, downlink_hz, snr_db, fading, coherence, min_bits_per_second } => {
                let gain = fading.gain(key.draws(direction, number));
                // 10^(dB/10): the power of two is several times as fast as that of ten.
                let snr = (snr_db / 10.0 * std::f64::consts::LOG2_10).exp2() * gain;
                let hertz = if direction == Direction::Up { uplink_hz } else { downlink_hz };
                let rate = hertz * (1.0 + snr).log2();
                let ends = start + Span((u64::from(number) + 1).saturating_mul(coherence.0.max(1)));
                (if rate < *min_bits_per_second { 0.0 } else { rate }, snr, ends)
            }
            LinkRate::Trace { step, uplink, downlink } => {
                let rates = if direction == Direction::Up { uplink } else { downlink };
                let index = at.0 / step.0.max(1);
                // An empty trace is refused when a scenario is read; zero here would be an endless outage.
                let rate = rates.get((index % rates.len().max(1) as u64) as usize).copied().unwrap_or(f64::INFINITY);
                (rate, f64::NAN, Time((index + 1).saturating_mul(step.0.max(1))))
            }
        }
    }
}

impl Fading {
    /// One draw of |h|².
    fn gain(self, mut draws: Draws) -> f64 {
        match self {
            Fading::None => 1.0,
            Fading::Rayleigh => -(1.0 - draws.uniform()).ln(),
            Fading::Rician { k } => {
                // Line of sight √(K/(K+1)) plus a complex Gaussian of power 1/(K+1), by Box-Muller.
                let radius = (-(1.0 - draws.uniform()).ln() / (k + 1.0)).sqrt();
                let angle = std::f64::consts::TAU * draws.uniform();
                let line = (k / (k + 1.0)).sqrt();
                let (re, im) = (line + radius * angle.cos(), radius * angle.sin());
                re * re + im * im
            }
        }
    }
}

/// A key for each number.
#[cfg(test)]
fn key(position: u32) -> ChannelKey {
    ChannelKey { seed: 1, position, ..ChannelKey::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(snr_db: f64, fading: Fading, min_bits_per_second: f64) -> LinkProfile {
        LinkProfile {
            name: "test".into(),
            source: "test".into(),
            emulated: true,
            rate: LinkRate::Fading {
                uplink_hz: 1e6,
                downlink_hz: 1e6,
                snr_db,
                fading,
                coherence: Span::from_millis(10),
                min_bits_per_second,
            },
            round_trip: Span::from_millis(20),
            transmit_watts: 1.0,
            receive_watts: 0.5,
        }
    }

    #[test]
    fn without_fading_the_shannon_rate_gives_the_time() {
        // SNR 0 dB: log2(2) = 1 bit/s/Hz, so 50,000 bits at 1 MHz take 50 ms, across five blocks.
        let mut state = LinkState::default();
        let link = profile(0.0, Fading::None, 0.0);
        let sent = state.transfer(&link, key(0), Direction::Up, Time(0), 50_000);
        assert_eq!(sent.airtime, Span::from_millis(50));
        assert_eq!(sent.arrives, Time(60_000_000));
        assert_eq!(sent.outages, 0);
        // The second payload waits for the first.
        let next = state.transfer(&link, key(0), Direction::Up, Time(0), 10_000);
        assert_eq!(next.arrives, Time(70_000_000));
        // The other direction does not.
        let down = state.transfer(&link, key(0), Direction::Down, Time(0), 10_000);
        assert_eq!(down.arrives, Time(20_000_000));
    }

    #[test]
    fn an_outage_costs_its_block() {
        let mut state = LinkState::default();
        let link = profile(0.0, Fading::Rayleigh, 0.9e6);
        let mut outages = 0;
        for device in 0..50 {
            let sent = state.transfer(&link, key(device), Direction::Up, Time(0), 1_000);
            assert!(sent.airtime.0 >= u64::from(sent.outages) * 10_000_000, "{sent:?}");
            outages += sent.outages;
            state = LinkState::default();
        }
        assert!(outages > 0);
    }

    #[test]
    fn fading_has_mean_one() {
        for fading in [Fading::Rayleigh, Fading::Rician { k: 3.0 }] {
            let mean = (0..20_000).map(|block| fading.gain(key(block).draws(Direction::Up, 0))).sum::<f64>() / 20_000.0;
            assert!((mean - 1.0).abs() < 0.03, "{fading:?}: {mean}");
        }
    }

    #[test]
    fn the_channel_belongs_to_the_upload_and_not_to_the_clock() {
        let link = profile(0.0, Fading::Rayleigh, 0.0);
        let sent = |key, direction, now| {
            let transfer = LinkState::default().transfer(&link, key, direction, Time(now), 50_000);
            (transfer.airtime, transfer.snr)
        };
        let one = sent(key(5), Direction::Up, 0);
        assert_eq!(one, sent(key(5), Direction::Up, 123_456_789));
        let again = ChannelKey { attempt: 1, ..key(5) };
        for other in [sent(key(6), Direction::Up, 0), sent(again, Direction::Up, 0), sent(key(5), Direction::Down, 0)] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_trace_repeats() {
        let link = LinkProfile {
            rate: LinkRate::Trace { step: Span::from_millis(1), uplink: vec![1e6, 0.0], downlink: vec![1e6, 1e6] },
            ..profile(0.0, Fading::None, 0.0)
        };
        let sent = LinkState::default().transfer(&link, key(0), Direction::Up, Time(0), 2_000);
        assert_eq!(sent.airtime, Span::from_millis(3));
        assert_eq!(sent.outages, 1);
    }
}
