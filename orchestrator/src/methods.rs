//! From the scenario's methods to methods with every threshold a number, calibrating where one is missing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use specfleet_config::{CALIBRATIONS, MethodChoice, Settings};
use specfleet_engine::calibration::{Calibration, CalibrationKey, MethodError, MethodOverrides, resolve};
use specfleet_engine::method::{Estimator, Method};
use specfleet_files::sealed::{self, Seal};

use crate::calibrate;
use crate::error::Error;
use crate::pair::Pair;

/// Folder of cached calibrations in a ledger. No run has this name.
pub(crate) const CACHE: &str = "calibrations";

/// The methods of a run and the calibrations that they took their numbers from.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    pub methods: Vec<Method>,
    /// Each used one once.
    pub calibrations: Vec<Calibration>,
    /// One line each about calibrations that fit badly.
    pub warnings: Vec<String>,
}

/// Where calibrations come from.
pub struct Calibrations<'a> {
    settings: &'a Settings,
    pair: &'a Pair,
    /// Folder of the cache.
    cache: PathBuf,
    /// Told before a calibration is computed, because that takes a while.
    announce: &'a dyn Fn(&str),
}

impl<'a> Calibrations<'a> {
    /// Calibrations for this scenario, cached in `ledger/calibrations`.
    pub fn new(settings: &'a Settings, pair: &'a Pair, ledger: &Path, announce: &'a dyn Fn(&str)) -> Self {
        Calibrations { settings, pair, cache: ledger.join(CACHE), announce }
    }

    /// Resolves all methods of the scenario.
    pub fn resolve(&self) -> Result<Resolved, Error> {
        let mut resolved = Resolved::default();
        for choice in &self.settings.methods {
            let method = self.resolve_one(choice, &mut resolved)?;
            resolved.methods.push(method);
        }
        resolved.warnings = resolved.calibrations.iter().filter_map(Calibration::fits_badly).collect();
        Ok(resolved)
    }

    /// The calibration that a simulation of these methods takes batch costs and distributions from: the first that they
    /// took numbers from, or the one for the scenario's sampling.
    pub fn of_run(&self, resolved: &Resolved) -> Result<Calibration, Error> {
        match resolved.calibrations.first() {
            Some(calibration) => Ok(calibration.clone()),
            None => self.find(self.key(&MethodOverrides::default())?),
        }
    }

    fn resolve_one(&self, choice: &MethodChoice, resolved: &mut Resolved) -> Result<Method, Error> {
        let layers = self.pair.drafter.shape().layers;
        if let Some(layer) = choice.overrides.layer.filter(|&layer| usize::from(layer) >= layers) {
            let range = format!("0 to {}: the drafter has {layers} layers", layers.saturating_sub(1));
            let method = choice.name.clone();
            return Err(MethodError::OutOfRange { method, key: "layer", value: layer.to_string(), range }.into());
        }
        match resolve(None, &choice.name, &choice.overrides) {
            Err(MethodError::Missing { .. }) => {}
            settled => return settled.map_err(Error::from),
        }
        let key = self.key(&choice.overrides)?;
        let known = resolved.calibrations.iter().position(|calibration| calibration.key == key);
        let index = match known {
            Some(index) => index,
            None => {
                resolved.calibrations.push(self.find(key)?);
                resolved.calibrations.len() - 1
            }
        };
        Ok(resolved.calibrations[index].resolve(&choice.name, &choice.overrides)?)
    }

    /// What a calibration for a method with these overrides must belong to.
    fn key(&self, overrides: &MethodOverrides) -> Result<CalibrationKey, Error> {
        // `hlm` needs no calibration and takes the same payload overrides; only `sparse-exact` makes a difference.
        let form = resolve(None, "hlm", overrides)?.payload;
        Ok(calibrate::key(self.settings, self.pair, overrides.estimator.unwrap_or(Estimator::Expected), form))
    }

    /// From the scenario's file, the shipped ones, the cache, or computed now.
    fn find(&self, key: CalibrationKey) -> Result<Calibration, Error> {
        if let Some(file) = &self.settings.calibration.file {
            let wrong = |why: String| Error::Calibration { path: file.path.clone(), why };
            if sealed::check(file.text.as_bytes()) == Seal::Broken {
                return Err(wrong("its checksum does not fit: take that out if you changed the file".to_owned()));
            }
            let calibration: Calibration = serde_json::from_str(&file.text).map_err(|e| wrong(e.to_string()))?;
            if calibration.key != key {
                return Err(wrong("it belongs to another pair, temperature, estimator or prompt set".to_owned()));
            }
            return Ok(calibration);
        }
        let mut shipped = CALIBRATIONS.iter().filter_map(|text| serde_json::from_str::<Calibration>(text).ok());
        if let Some(calibration) = shipped.find(|calibration| calibration.key == key) {
            return Ok(calibration);
        }
        let path = self.cache.join(format!("{}.json", key.fingerprint()));
        // A cached file that cannot be read, or has the fingerprint of another key by chance, is computed again; so is one of
        // an earlier version, which has no checksum.
        let cached = specfleet_files::read(&path, specfleet_files::DATA).ok();
        let is_whole = cached.as_deref().is_none_or(|text| sealed::check(text) == Seal::Whole);
        if !is_whole {
            (self.announce)(&format!("{} is not what was written: it is computed again", path.display()));
        }
        let cached = cached.filter(|_| is_whole);
        let cached = cached.and_then(|text| serde_json::from_slice::<Calibration>(&text).ok());
        if let Some(calibration) = cached.filter(|calibration| calibration.key == key) {
            return Ok(calibration);
        }
        (self.announce)("calibrating this pair (once; kept beside the runs)");
        let calibration = calibrate::calibrate(self.settings, self.pair, key, self.announce)?;
        write(&path, &calibration)?;
        Ok(calibration)
    }
}

fn write(path: &Path, calibration: &Calibration) -> Result<(), Error> {
    let failed = |source| Error::Output { path: path.to_path_buf(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let text = serde_json::to_string_pretty(calibration).map_err(|e| failed(e.into()))?;
    // Another run may read it at the same time: it appears whole or not at all.
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&partial)?;
        file.write_all(&sealed::seal(text.as_bytes()))?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(failed)
}
