//! Which verifier the pool has: one that changes, one that a calibration does not know, and one whose certificate is new.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use crate::cli::{QUESTION, arguments, call, message};
use crate::common::*;

fn fingerprint(pool: &FakePool) -> String {
    Sha256::digest(&pool.certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a text was begun with by one verifier, another one does not go on with: the device refuses it, and fails or goes on
/// alone as it was told.
#[test]
fn a_text_is_not_continued_by_another_verifier() {
    system(async {
        for (policy, code) in [("fail", 1), ("local", 0)] {
            let pool = FakePool::start(Behaviour { changes_after: Some(4), ..Behaviour::default() });
            let (address, digits) = (pool.address.to_string(), fingerprint(&pool));
            let policy = format!("run.on_unreachable={policy}");
            let given = ["--connect", &address, "--fingerprint", &digits, "--prompt", QUESTION, "--temperature", "0"];
            let more = ["--method", "hlm", "--max-new-tokens", "12", "--json", "--set", &policy];
            let patience = ["--set", "run.unreachable_after_ms=500"];
            let output = call(arguments(&[&given[..], &more, &patience].concat())).await;
            let text = message(&output);
            assert_eq!(output.status.code(), Some(code), "{policy}: {text}");
            // The pool was asked for no further verdict than the one that it kept to itself.
            assert_eq!(pool.state.uploads.load(Ordering::Relaxed), 5, "{policy}");
            assert!(pool.state.connections.load(Ordering::Relaxed) > 1, "{policy}: it called again");
            if code == 1 {
                let before: String = digest_of_verifier().chars().take(8).collect();
                let why = format!(
                    "error: the generation failed: the pool went out of reach: the pool's verifier has other weights \
                     (SHA-256 09090909) than the text was begun with ({before})"
                );
                assert_eq!(text, why);
            } else {
                let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
                assert_eq!(told["token_ids"].as_array().map(Vec::len), Some(12));
                assert_eq!(told["uploads"]["verdicts"], 4);
                assert_eq!(told["verifier"]["sha256"], digest_of_verifier(), "the one that it had verdicts of");
            }
        }
    });
}

fn digest_of_verifier() -> String {
    let digests = specfleet_model::ModelDigests::embedded(specfleet_model::Embedded::Verifier);
    digests.whole.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who waits for the pool is told what for, and goes on when it is there again.
#[test]
fn a_text_that_waits_says_why() {
    system(async {
        let pool = FakePool::start(Behaviour { changes_after: Some(2), ..Behaviour::default() });
        let (address, digits) = (pool.address.to_string(), fingerprint(&pool));
        let given = ["--connect", &address, "--fingerprint", &digits, "--prompt", QUESTION, "--temperature", "0"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_device-agent"));
        command.args(given).args(["--method", "hlm"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let read = move || {
            let mut agent = command.spawn().expect("it can be run");
            let mut line = String::new();
            BufReader::new(agent.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
            agent.kill().expect("it waits for ever");
            agent.wait().expect("it has ended");
            line
        };
        let line = tokio::task::spawn_blocking(read).await.expect("no panic");
        assert!(line.starts_with("note: no connection to the pool: the pool's verifier has other weights"), "{line}");
    });
}

/// The next text may begin with the new one.
#[test]
fn the_next_text_begins_with_the_new_verifier() {
    system(async {
        let pool = FakePool::start(Behaviour { changes_after: Some(0), ..Behaviour::default() });
        let (address, digits) = (pool.address.to_string(), fingerprint(&pool));
        let given = ["--connect", &address, "--fingerprint", &digits, "--prompt", QUESTION, "--temperature", "0"];
        let calibrated = arguments(&[&given[..], &["--method", "ui-hlm", "--max-new-tokens", "8", "--json"]].concat());
        // The first one meets the change at its first upload: it has had no verdict yet, and still it does not go over.
        let policy = ["--set", "run.on_unreachable=fail", "--set", "run.unreachable_after_ms=500"];
        let first = call(calibrated.iter().cloned().chain(arguments(&policy)).collect()).await;
        assert_eq!(first.status.code(), Some(1), "{}", message(&first));
        let second = call(calibrated).await;
        assert!(second.status.success(), "{}", message(&second));
        let told: serde_json::Value = serde_json::from_slice(&second.stdout).expect("one JSON object");
        assert_eq!(told["verifier"]["sha256"], "09".repeat(32));
        // Its thresholds are of another pair, which is said.
        let notes = String::from_utf8(second.stderr).expect("text");
        let before: String = digest_of_verifier().chars().take(8).collect();
        let note = format!(
            "note: the calibration is of another pair: it was made with another verifier (SHA-256 {before}, and this one's is \
             09090909); the thresholds are rough, and no token is wrong because of it\n"
        );
        assert_eq!(notes, note);
    });
}

/// A calibration of another drafter is said too; one of the same weights in a folder is not.
#[test]
fn a_calibration_of_another_drafter_is_said() {
    system(async {
        let pool = FakePool::start(Behaviour::default());
        let (address, digits) = (pool.address.to_string(), fingerprint(&pool));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/assets");
        for file in ["drafter/config.json", "drafter/model.safetensors", "tokenizer.json"] {
            let name = file.rsplit('/').next().expect("a name");
            std::fs::copy(assets.join(file), folder.path().join(name)).expect("copied");
        }
        let calibration = assets.join("../../config/calibration/greedy.json");
        let text = std::fs::read_to_string(&calibration).expect("it ships");
        let of_another = folder.path().join("other.json");
        let digest = "c550af11b3ea7d6f33046706680256e4cf5e8050871894ad5ddc60d01e48073a";
        assert!(text.contains(digest), "the shipped calibration names the drafter");
        std::fs::write(&of_another, text.replace(digest, &"ab".repeat(32))).expect("writable");
        let (drafter, other) = (folder.path().to_str().expect("Unicode"), of_another.to_str().expect("Unicode"));
        let given = ["--connect", &address, "--fingerprint", &digits, "--prompt", QUESTION, "--temperature", "0"];
        let same = ["--drafter", drafter, "--calibration", calibration.to_str().expect("Unicode")];
        for (pair, expected) in
            [(&same[..], None), (&["--calibration", other], Some("another drafter (SHA-256 abababab"))]
        {
            let output = call(arguments(&[&given[..], pair, &["--max-new-tokens", "4"]].concat())).await;
            assert!(output.status.success(), "{}", message(&output));
            let notes = String::from_utf8(output.stderr).expect("text");
            match expected {
                None => assert_eq!(notes, ""),
                Some(part) => assert!(notes.contains(part) && notes.lines().count() == 1, "{notes}"),
            }
        }
    });
}

/// A pool without files of its own makes a new certificate at each start: who pins the old one is told how to go on.
#[test]
fn a_new_development_certificate_says_how_to_go_on() {
    system(async {
        let (old, new) = (FakePool::start(Behaviour::default()), FakePool::start(Behaviour::default()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pem = folder.path().join("pool.pem");
        std::fs::write(&pem, &old.pem).expect("writable");
        let (address, digits) = (format!("localhost:{}", new.address.port()), fingerprint(&old));
        for trust in [["--fingerprint", &digits], ["--certificate", pem.to_str().expect("Unicode")]] {
            let given = ["--connect", &address, "--prompt", QUESTION, "--method", "hlm", "--connect-timeout", "5"];
            let output = call(arguments(&[&given[..], &trust].concat())).await;
            let text = message(&output);
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.starts_with("error: --connect localhost:") && text.lines().count() == 1, "{text}");
            assert!(text.contains("A pool without pool.tls makes a new certificate whenever it starts"), "{text}");
            let found = text.contains(&fingerprint(&new));
            assert_eq!(found, trust[0] == "--fingerprint", "{text}");
        }
    });
}
