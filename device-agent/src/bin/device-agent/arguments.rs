//! The command line, and what it means together with the scenario.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use device_agent::{ServerIdentity, Trust};
use specfleet_config::{HostPort, Scenario, Settings};
use specfleet_logs::LogArgs;

/// One device: drafts here, asks the pool where it is in doubt, and prints the text as it comes.
#[derive(Debug, Parser)]
#[command(name = "device-agent", version)]
pub(crate) struct AgentArguments {
    /// Address of the verifier pool; a port alone means this machine's loopback.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: HostPort,
    /// The question; it is wrapped as `Question: …`, `Answer:` unless --raw-prompt is given.
    #[arg(long)]
    pub(crate) prompt: String,
    /// Feed the prompt as it is.
    #[arg(long)]
    pub(crate) raw_prompt: bool,
    /// Scenario to take the models, the method's parameters, the profiles and patience from. Without one: this machine
    /// (profile `host`) on the real network (link `real`).
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Upload method.
    #[arg(long, default_value = "ui-hlm")]
    method: String,
    /// Certificate of the pool or of its authority.
    #[arg(long, value_name = "FILE.pem", conflicts_with = "fingerprint", required_unless_present = "fingerprint")]
    certificate: Option<PathBuf>,
    /// SHA-256 of the pool's certificate, in hexadecimal digits (colons may stand between).
    #[arg(long, value_name = "SHA256")]
    fingerprint: Option<String>,
    /// Name in the pool's certificate, if it is not the host of --connect.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// The device's own certificate, if the pool asks for one.
    #[arg(long, value_name = "FILE.pem", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE.pem", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// Seconds after which a pool that cannot be reached is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, allow_negative_numbers = true)]
    connect_timeout: f64,
    /// Most tokens of the answer.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<u32>,
    /// Softmax temperature; 0 is greedy.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Seed of every random draw.
    #[arg(long, value_name = "S")]
    seed: Option<u32>,
    /// How the drafter's matrices are stored: f32, q8_0 or q4_k.
    #[arg(long)]
    precision: Option<String>,
    /// Hugging Face folder of another drafter; its tokenizer must be the pool's.
    #[arg(long, value_name = "DIR")]
    drafter: Option<PathBuf>,
    /// Calibration of this pair, as a run writes it.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Override any key of the scenario.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object at the end and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl AgentArguments {
    /// The scenario's settings with the flags on top: exactly one method.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let mut scenario = match &self.scenario {
            Some(path) => Scenario::load(path)?,
            None => {
                let mut scenario = Scenario::parse("the command line", "", None)?;
                scenario.set_flag("--connect", "device.profile", "host")?;
                scenario.set_flag("--connect", "device.link", "real")?;
                scenario
            }
        };
        scenario.set_flag("--method", "run.methods", self.method.as_str())?;
        if let Some(most) = self.max_new_tokens {
            scenario.set_flag("--max-new-tokens", "run.max_new_tokens", most)?;
        }
        if let Some(temperature) = self.temperature {
            scenario.set_flag("--temperature", "run.temperature", temperature)?;
        }
        if let Some(seed) = self.seed {
            scenario.set_flag("--seed", "run.seed", seed)?;
        }
        if let Some(precision) = &self.precision {
            scenario.set_flag("--precision", "model.drafter_precision", precision.as_str())?;
        }
        if let Some(folder) = &self.drafter {
            scenario.set_path_flag("--drafter", "model.drafter", folder)?;
        }
        if let Some(file) = &self.calibration {
            scenario.set_path_flag("--calibration", "calibration.file", file)?;
        }
        for assignment in &self.set {
            scenario.set(assignment)?;
        }
        let settings = scenario.settings()?;
        if settings.methods.len() != 1 {
            bail!("--method: one device runs one method, not {:?}", self.method);
        }
        Ok(settings)
    }

    /// Where the pool listens, and its name.
    pub(crate) fn server(&self) -> Result<(SocketAddr, String)> {
        let address = self.connect.resolve().context("--connect")?;
        Ok((address, self.server_name.clone().unwrap_or_else(|| self.connect.host())))
    }

    /// Which certificate the pool may have.
    pub(crate) fn trust(&self) -> Result<Trust> {
        if let Some(path) = &self.certificate {
            return Trust::roots_from_pem(path).context("--certificate");
        }
        // One of the two is given: clap saw to that.
        let given = self.fingerprint.as_deref().unwrap_or_default();
        let digits: String = given.chars().filter(|c| *c != ':').collect();
        let digest = parse_digest(&digits);
        Ok(Trust::Fingerprint(digest.with_context(|| format!("--fingerprint {given}: must be 64 hexadecimal digits"))?))
    }

    /// The device's own certificate.
    pub(crate) fn identity(&self) -> Result<Option<ServerIdentity>> {
        match (&self.client_certificate, &self.client_key) {
            (Some(chain), Some(key)) => Ok(Some(ServerIdentity::from_pem(chain, key).context("--client-certificate")?)),
            _ => Ok(None),
        }
    }

    /// How long to try.
    pub(crate) fn patience(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.connect_timeout)
            .with_context(|| format!("--connect-timeout {}: must be a number of seconds", self.connect_timeout))
    }
}

fn parse_digest(digits: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &[&str]) -> AgentArguments {
        let fixed = ["device-agent", "--connect", "127.0.0.1:4433", "--prompt", "2+2?"];
        AgentArguments::try_parse_from(fixed.iter().chain(extra)).expect("valid")
    }

    #[test]
    fn flags_reach_the_settings() {
        let digest = "ab".repeat(32);
        let given = ["--fingerprint", &digest, "--method", "hlm", "--temperature", "0", "--set", "run.seed=9"];
        let arguments = parse(&given);
        let settings = arguments.settings().expect("valid");
        assert_eq!((settings.methods[0].name.as_str(), settings.run.seed), ("hlm", 9));
        assert_eq!(settings.run.sampling.temperature, 0.0);
        assert_eq!(settings.device.parts[0].profile.name, "host");
        assert_eq!(settings.device.parts[0].link.name, "real");
        assert_eq!(arguments.server().expect("an address").1, "127.0.0.1");
        assert!(matches!(arguments.trust().expect("digits"), Trust::Fingerprint(digest) if digest == [0xab; 32]));
    }

    #[test]
    fn mistakes_name_their_flag() {
        let short = parse(&["--fingerprint", "abc", "--method", "hlm,dssd"]);
        assert!(short.trust().expect_err("short").to_string().starts_with("--fingerprint abc"));
        assert!(short.settings().expect_err("two").to_string().starts_with("--method"));
        let unknown = parse(&["--fingerprint", "abc", "--method", "hml"]).settings().expect_err("unknown").to_string();
        assert!(unknown.contains("--method") && unknown.contains("hml"), "{unknown}");
    }
}
