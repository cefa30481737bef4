//! Link profiles.

use std::ops::RangeInclusive;

use specfleet_engine::device::link::{Fading, LinkProfile, LinkRate, path_loss_snr_db};
use specfleet_engine::time::Span;

use super::device::WATTS;
use super::trace;
use crate::ConfigError;
use crate::read::Section;

const HERTZ: RangeInclusive<f64> = 1.0..=1e12;
/// Rates in bits per second.
pub(super) const BITS_PER_SECOND: RangeInclusive<f64> = 1.0..=1e15;
/// Levels in dB or dBm.
const DECIBELS: RangeInclusive<f64> = -300.0..=300.0;

#[derive(Clone, Copy)]
enum LinkKind {
    Fading,
    Constant,
    Trace,
}

/// Reads a link profile.
pub(super) fn read(section: &Section<'_>) -> Result<LinkProfile, ConfigError> {
    let name = super::name_of(section)?;
    let source = section.required_text("source")?.to_owned();
    let emulated = section.opt_flag("emulated")?.ok_or_else(|| section.missing("emulated", "true or false".into()))?;
    let kinds = [("fading", LinkKind::Fading), ("constant", LinkKind::Constant), ("trace", LinkKind::Trace)];
    let rate = match section.required_choice("kind", &kinds)? {
        LinkKind::Fading => fading_rate(section)?,
        // A trace of one step that repeats is a constant rate.
        LinkKind::Constant => LinkRate::Trace {
            step: Span::from_millis(1000),
            uplink: vec![section.required_number("uplink_bps", BITS_PER_SECOND)?],
            downlink: vec![section.required_number("downlink_bps", BITS_PER_SECOND)?],
        },
        LinkKind::Trace => {
            let path = section
                .opt_path("trace")?
                .ok_or_else(|| section.missing("trace", "a CSV file seconds,uplink_bps,downlink_bps".into()))?;
            trace::open(section, "trace", &path)?
        }
    };
    Ok(LinkProfile {
        name,
        source,
        emulated,
        rate,
        round_trip: millis(section, "round_trip_ms", 0.0..=600_000.0)?,
        transmit_watts: section.required_number("transmit_watts", WATTS)?,
        receive_watts: section.required_number("receive_watts", WATTS)?,
    })
}

fn fading_rate(section: &Section<'_>) -> Result<LinkRate, ConfigError> {
    let path_loss = section.section("path_loss")?;
    let snr_db = match (section.opt_number("snr_db", DECIBELS)?, path_loss.present().is_empty()) {
        (Some(snr_db), true) => snr_db,
        (None, false) => path_loss_snr_db(
            path_loss.required_number("transmit_dbm", DECIBELS)?,
            path_loss.required_number("reference_loss_db", DECIBELS)?,
            path_loss.required_number("exponent", 0.0..=10.0)?,
            path_loss.required_number("distance_m", 1.0..=1e7)?,
            path_loss.required_number("noise_dbm", DECIBELS)?,
        ),
        (Some(_), false) => return Err(section.conflict("snr_db", "cannot stand beside the table path_loss")),
        (None, true) => return Err(section.missing("snr_db", "a number of dB, or a table path_loss".into())),
    };
    Ok(LinkRate::Fading {
        uplink_hz: section.required_number("uplink_hz", HERTZ)?,
        downlink_hz: section.required_number("downlink_hz", HERTZ)?,
        snr_db,
        fading: fading(section)?,
        coherence: millis(section, "coherence_ms", 0.01..=600_000.0)?,
        min_bits_per_second: section.number("min_bits_per_second", 0.0..=1e15, 0.0)?,
    })
}

fn fading(section: &Section<'_>) -> Result<Fading, ConfigError> {
    #[derive(Clone, Copy, PartialEq)]
    enum LinkKind {
        None,
        Rayleigh,
        Rician,
    }
    let kinds = [("none", LinkKind::None), ("rayleigh", LinkKind::Rayleigh), ("rician", LinkKind::Rician)];
    Ok(match section.required_choice("fading", &kinds)? {
        LinkKind::None => Fading::None,
        LinkKind::Rayleigh => Fading::Rayleigh,
        LinkKind::Rician => Fading::Rician { k: section.required_number("rician_k", 0.0..=1e6)? },
    })
}

fn millis(section: &Section<'_>, name: &str, range: RangeInclusive<f64>) -> Result<Span, ConfigError> {
    Ok(Span::from_seconds(section.required_number(name, range)? * 1e-3))
}
