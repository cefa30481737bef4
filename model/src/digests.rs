//! What a model is made of, told apart by SHA-256.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::Embedded;

/// Files of a model's folder, beside its weights, that decide what it computes and where its texts end.
const CONFIGURATION: [&str; 2] = ["config.json", "generation_config.json"];

/// SHA-256 of a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDigests {
    /// Of everything, names of files included: what a calibration belongs to. For an embedded model that of its weights.
    pub whole: [u8; 32],
    /// Of the weights, one file after another.
    pub weights: [u8; 32],
    /// Of what else decides the numbers: `config.json`, then `generation_config.json` if there is one.
    pub configuration: [u8; 32],
    /// The folder, unless the model is embedded.
    pub path: Option<PathBuf>,
}

impl ModelDigests {
    /// Those of a model that is part of the binary.
    pub fn embedded(which: Embedded) -> ModelDigests {
        let weights = Sha256::digest(which.weights()).into();
        let configuration = Sha256::digest(which.config()).into();
        ModelDigests { whole: weights, weights, configuration, path: None }
    }

    /// Those of a Hugging Face folder, without loading the model. A file that cannot be read has failed the loader before,
    /// or will; here it counts as empty.
    pub fn folder(folder: &Path) -> ModelDigests {
        let is_weights = |path: &Path| path.extension().is_some_and(|extension| extension == "safetensors");
        let is_named = |path: &Path, name: &str| path.file_name().is_some_and(|found| found == name);
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_weights(path) || CONFIGURATION.iter().any(|name| is_named(path, name)))
            .collect();
        paths.sort();
        // Beside the whole weights, shards are a remainder that nobody reads.
        let merged = paths.iter().any(|path| is_named(path, "model.safetensors"));
        let (mut whole, mut weights, mut configuration) = (Sha256::new(), Sha256::new(), Sha256::new());
        for path in &paths {
            whole.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            let part = match is_weights(path) {
                false => Some(&mut configuration),
                true if !merged || is_named(path, "model.safetensors") => Some(&mut weights),
                true => None,
            };
            let _ = feed(path, &mut Both(&mut whole, part));
        }
        let [whole, weights, configuration] = [whole, weights, configuration].map(|digest| digest.finalize().into());
        let path = Some(std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()));
        ModelDigests { whole, weights, configuration, path }
    }
}

/// Feeds a file to digests piece by piece: weights may be larger than the memory that is free.
fn feed(path: &Path, digests: &mut Both<'_>) -> io::Result<()> {
    io::copy(&mut specfleet_files::open(path, u64::MAX)?, digests)?;
    Ok(())
}

struct Both<'a>(&'a mut Sha256, Option<&'a mut Sha256>);

impl io::Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        if let Some(part) = &mut self.1 {
            part.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_an_embedded_model_has_its_weights_and_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let embedded = ModelDigests::embedded(Embedded::Drafter);
        fs::write(folder.path().join("model.safetensors"), Embedded::Drafter.weights()).unwrap();
        fs::write(folder.path().join("config.json"), Embedded::Drafter.config()).unwrap();
        fs::write(folder.path().join("README.md"), "nobody reads it").unwrap();
        let copy = ModelDigests::folder(folder.path());
        assert_eq!((copy.weights, copy.configuration), (embedded.weights, embedded.configuration));
        // As it was named before there was this type: kept calibrations have it.
        let whole = Sha256::new().chain_update("config.json").chain_update(Embedded::Drafter.config());
        let whole = whole.chain_update("model.safetensors").chain_update(Embedded::Drafter.weights());
        assert_eq!(copy.whole, <[u8; 32]>::from(whole.finalize()));

        fs::write(folder.path().join("generation_config.json"), "{}").unwrap();
        let changed = ModelDigests::folder(folder.path());
        assert_eq!(changed.weights, copy.weights);
        assert!(changed.configuration != copy.configuration && changed.whole != copy.whole);
        // What is left of shards beside the whole file counts as a part of the folder and is no part of the weights.
        fs::write(folder.path().join("model-00001-of-00002.safetensors"), "old").unwrap();
        assert_eq!(ModelDigests::folder(folder.path()).weights, copy.weights);
    }
}
