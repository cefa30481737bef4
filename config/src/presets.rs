//! Everything that ships, embedded: no file is needed at run time.

/// A file that ships.
#[derive(Clone, Copy, Debug)]
pub struct ShippedFile {
    /// Its name in scenarios.
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! presets {
    ($folder:literal, $extension:literal: $($name:literal),+ $(,)?) => {
        &[$(ShippedFile {
            name: $name,
            text: include_str!(concat!("../", $folder, "/", $name, ".", $extension)),
        }),+]
    };
}

impl ShippedFile {
    /// Scenarios; the first is the default.
    pub const SCENARIOS: &'static [ShippedFile] =
        presets!("scenarios", "toml": "default", "paper", "street", "crowd", "rush", "h200", "million", "reference");
    /// Device profiles.
    pub const DEVICES: &'static [ShippedFile] =
        presets!("devices", "toml": "host", "phone", "phone-tinyllama", "raspberry-pi-5", "jetson-orin-nano");
    /// Link profiles.
    pub const LINKS: &'static [ShippedFile] =
        presets!("links", "toml": "good", "fair", "poor", "wifi", "lte", "ethernet", "real");
    /// Verifier profiles.
    pub const VERIFIERS: &'static [ShippedFile] = presets!("verifiers", "toml": "host-cpu", "a100", "h100", "h200");
    /// Sizes of models.
    pub const MODELS: &'static [ShippedFile] = presets!("models", "toml": "llama-2-7b", "tinyllama-1.1b");
    /// Data sets.
    pub const WORKLOADS: &'static [ShippedFile] =
        presets!("workloads", "jsonl": "word-problems", "gsm8k", "calibration");

    /// The preset of this name.
    pub(crate) fn find(presets: &'static [ShippedFile], name: &str) -> Option<&'static ShippedFile> {
        presets.iter().find(|preset| preset.name == name)
    }

    /// All names, for messages.
    pub(crate) fn names(presets: &'static [ShippedFile]) -> String {
        presets.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
    }
}
