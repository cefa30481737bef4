//! The binary, as a user calls it.

use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::common::*;

/// It has a long answer.
pub(crate) const QUESTION: &str = "Tom has 5 apples and buys 3 more. He eats 1. How many apples does he have?";

pub(crate) async fn call(arguments: Vec<OsString>) -> Output {
    call_into(Stdio::piped(), arguments).await
}

/// With another standard output.
async fn call_into(output: impl Into<Stdio>, arguments: Vec<OsString>) -> Output {
    let output = output.into();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_device-agent"));
        command.args(arguments).stdout(output).output().expect("it can be run")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

pub(crate) fn arguments(given: &[&str]) -> Vec<OsString> {
    given.iter().map(OsString::from).collect()
}

pub(crate) fn message(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    text.lines().filter(|line| !line.starts_with("note: ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn one_device_prints_the_verifiers_text_and_its_account() {
    system(async {
        let pool = FakePool::start(Behaviour::default());
        let address = pool.address.to_string();
        let port = pool.address.port();
        let (by_name, by_port) = (format!("localhost:{port}"), format!(":{port}"));
        let fingerprint: String = Sha256::digest(&pool.certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        let common = ["--prompt", QUESTION, "--temperature", "0", "--max-new-tokens", "24"];

        let json = ["--connect", &by_port, "--fingerprint", &fingerprint, "--method", "block", "--json"];
        let json = call(arguments(&[&common[..], &json].concat()));
        let json = json.await;
        assert!(json.status.success(), "{}", message(&json));
        let told: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
        let expected = greedy(&prompt(0), 24);
        assert_eq!(told["token_ids"], serde_json::json!(expected));
        assert_eq!(told["uploads"]["sent"], told["uploads"]["verdicts"]);
        assert!(told["energy"]["cloud"]["joules"].as_f64().is_some_and(|joules| joules > 0.0));

        // The certificate as its own authority, under the name that it bears: a flag's, or that of the address.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pem = folder.path().join("pool.pem");
        std::fs::write(&pem, &pool.pem).expect("a temporary file");
        let pem = pem.to_str().expect("Unicode");
        for named in [&["--connect", &address, "--server-name", "localhost"][..], &["--connect", &by_name]] {
            let trust = ["--certificate", pem, "--method", "ui-hlm"];
            let text = call(arguments(&[&common[..], named, &trust].concat())).await;
            assert!(text.status.success(), "{named:?}: {}", message(&text));
            let text = String::from_utf8(text.stdout).expect("text");
            assert!(text.contains("uploads: ") && text.contains("energy, device: "), "{text}");
        }
    });
}

/// A device that is stopped in the middle of its text has stood still, and has not been slow.
#[test]
fn a_standstill_is_in_no_figure() {
    system(async {
        let pool = FakePool::start(Behaviour::default());
        let fingerprint: String = Sha256::digest(&pool.certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        let address = pool.address.to_string();
        let stopped = move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_device-agent"));
            command.args(["--connect", &address, "--fingerprint", &fingerprint, "--prompt", QUESTION]);
            command.args(["--method", "hlm", "--max-new-tokens", "24", "--set", "device.profile=phone"]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
            let mut first = [0];
            child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("the first letter");
            for (signal, pause) in [("-STOP", 6), ("-CONT", 0)] {
                let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
                assert!(sent.expect("kill is there").success());
                std::thread::sleep(Duration::from_secs(pause));
            }
            child.wait_with_output().expect("it ends")
        };
        let output = tokio::task::spawn_blocking(stopped).await.expect("no panic");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("note: the process stood still for ") && said.contains(", which no figure contains"),
            "{said}"
        );
        let text = String::from_utf8(output.stdout).expect("text");
        let (_, account) = text.split_once(" tokens in ").expect("the account");
        let seconds: f64 = account.split_once(" s,").expect("seconds").0.parse().expect("a number");
        // It takes two and a half.
        assert!(seconds < 6.0, "{text}");
    });
}

/// A generation goes on where its text cannot be printed: on a full disk the agent says so at the end, and a reader that has
/// gone has seen what it wanted.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_printed_ends_no_generation() {
    system(async {
        let pool = FakePool::start(Behaviour::default());
        let address = pool.address.to_string();
        let fingerprint: String = Sha256::digest(&pool.certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        let fixed = ["--connect", &address, "--fingerprint", &fingerprint, "--prompt", "2+2?", "--method", "hlm"];
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        for more in [&[][..], &["--json"], &["--help"], &["--version"]] {
            let output = call_into(full(), arguments(&[&fixed[..], more].concat())).await;
            assert_eq!(output.status.code(), Some(1), "{more:?}: {}", message(&output));
            assert!(message(&output).starts_with("error: cannot print: "), "{more:?}: {}", message(&output));
            assert_eq!(message(&output).lines().count(), 1);

            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            let output = call_into(writer, arguments(&[&fixed[..], more].concat())).await;
            assert!(output.status.success() && message(&output).is_empty(), "{more:?}: {}", message(&output));
        }
    });
}

/// Paths on Linux are bytes.
#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_no_unicode_are_taken_as_they_are() {
    use std::os::unix::ffi::OsStringExt;

    system(async {
        let pool = FakePool::start(Behaviour::default());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let odd = |name: &str| folder.path().join(OsString::from_vec([name.as_bytes(), b"\xff"].concat()));
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets");
        let (drafter, scenario, certificate) = (odd("drafter"), odd("scenario"), odd("pool.pem"));
        std::fs::create_dir(&drafter).expect("a folder");
        for file in ["drafter/config.json", "drafter/model.safetensors", "tokenizer.json"] {
            let name = file.rsplit('/').next().expect("a name");
            std::fs::copy(assets.join(file), drafter.join(name)).expect("copied");
        }
        std::fs::write(&scenario, "[run]\nmax_new_tokens = 4\n[device]\nprofile = \"host\"\nlink = \"real\"\n")
            .expect("writable");
        std::fs::write(&certificate, &pool.pem).expect("writable");
        let calibration = odd("calibration");
        std::fs::copy(assets.join("../../config/calibration/greedy.json"), &calibration).expect("copied");
        let address = format!("localhost:{}", pool.address.port());
        let texts = ["--connect", &address, "--prompt", "2+2?", "--temperature", "0", "--json"].map(OsString::from);
        let paths = [
            ("--scenario", &scenario),
            ("--drafter", &drafter),
            ("--certificate", &certificate),
            ("--calibration", &calibration),
        ];
        let paths = paths.into_iter().flat_map(|(flag, path)| [flag.into(), path.clone().into_os_string()]);
        let output = call(texts.into_iter().chain(paths).collect()).await;
        assert!(output.status.success(), "{}", message(&output));

        let missing = odd("missing");
        let flags = ["--connect", "1", "--prompt", "2+2?", "--fingerprint", &"ab".repeat(32)].map(OsString::from);
        for flag in ["--drafter", "--calibration", "--scenario"] {
            let path = [flag.into(), missing.clone().into_os_string()];
            let output = call(flags.iter().cloned().chain(path).collect()).await;
            assert_eq!(output.status.code(), Some(2), "{flag}: {}", message(&output));
            assert!(message(&output).contains("missing\u{fffd}"), "{flag}: {}", message(&output));
        }
    });
}

#[test]
fn mistakes_end_with_one_line_and_code_2_and_an_absent_pool_with_1() {
    system(async {
        let digits = "ab".repeat(32);
        let fixed = ["--prompt", "hi", "--fingerprint", &digits];
        let nobody = ["--connect", "127.0.0.1:9"];
        let cases: [(&[&str], i32, &str); 8] = [
            (&["--method", "hml"], 2, "hml"),
            (&["--temperature", "-1"], 2, "temperature"),
            (&["--drafter", "/nowhere"], 2, "/nowhere"),
            (&["--seed", "x"], 2, "--seed"),
            (&["--connect", "localhost"], 2, "\"localhost\" is no address"),
            (&["--connect", "no-such-host.invalid:80"], 2, "--connect: no-such-host.invalid: the host name cannot"),
            (&["--set", "run.sed=1"], 2, "run.sed"),
            (&["--connect-timeout", "0.3", "--method", "hlm"], 1, "127.0.0.1:9"),
        ];
        for (extra, code, naming) in cases {
            let address = if extra.contains(&"--connect") { &[][..] } else { &nobody };
            let output = call(arguments(&[&fixed[..], address, extra].concat())).await;
            let message = message(&output);
            assert_eq!(output.status.code(), Some(code), "{extra:?}: {message}");
            assert!(message.contains(naming) && message.lines().count() == 1, "{extra:?}: {message}");
            assert!(output.stdout.is_empty());
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_system_without_room_is_refused_in_one_line() {
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=8", env!("CARGO_BIN_EXE_device-agent"), "--connect", "127.0.0.1:9", "--prompt", "a"]);
    let output = limited.args(["--fingerprint", &"0".repeat(64)]).output().expect("prlimit runs");
    let error = message(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.lines().count() == 1 && error.contains("files at the same time"), "{error}");
}
