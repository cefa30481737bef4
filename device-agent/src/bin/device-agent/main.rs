//! One real device against a pool, on this machine or another.

mod arguments;
mod belongs;
mod method;
mod report;

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use anyhow::{Context, Result, anyhow};
use clap::Parser;
use device_agent::{
    AgentError, AgentOptions, Connector, ConnectorOptions, Device, DeviceEvent, Drafter, Generate, HostClock,
    LastLinkError, Leave, Ready, Timer,
};
use specfleet_config::{ModelChoice, PrecisionChoice as Stored, Settings};
use specfleet_engine::device::{DeviceSettings, OnRefused, OnUnreachable};
use specfleet_engine::disturbance::Standstill;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::method::Method;
use specfleet_engine::record::{FinishReason, GenerationRecord, RoundRecord};
use specfleet_engine::time::Span;
use specfleet_engine::wire::AdmissionToken;
use specfleet_engine::wire::FrameLimits;
use specfleet_files::room;
use specfleet_logs::Printer;
use specfleet_model::{Embedded, Model, Precision, Tokenizer, check_tokenizer, useful_threads};
use tokio::sync::mpsc;

use crate::arguments::AgentArguments;
use crate::belongs::PairCheck;
use crate::report::{Meter, Report};

/// What went wrong decides the exit code.
enum Failure {
    /// The user's input: 2.
    Input(anyhow::Error),
    /// The pool, the network or this machine: 1.
    Run(anyhow::Error),
    /// It was asked to end: the signal's code.
    Interrupted,
}

/// How often it is looked whether there is a connection to the pool; what is so twice is said.
const LASTS: Duration = Duration::from_secs(2);

/// Threads and open files that are needed beside those of models: timers, signals, event loops and sockets.
const ROOM: (usize, usize) = (8, 24);

fn main() -> ExitCode {
    room::on_own_stack(program).unwrap_or_else(no_room)
}

fn no_room(full: room::NoRoom) -> ExitCode {
    specfleet_logs::say!("error: {full}");
    ExitCode::FAILURE
}

fn program() -> ExitCode {
    let arguments = match AgentArguments::try_parse() {
        Ok(arguments) => arguments,
        Err(asked) if !asked.use_stderr() => return specfleet_logs::print_help("error", &asked),
        Err(error) => {
            // clap goes on about usage behind an empty line: what is wrong stands before it.
            let message = error.to_string();
            let wrong = message.split("\n\n").next().unwrap_or_default();
            specfleet_logs::say!("{}", wrong.lines().map(str::trim).collect::<Vec<_>>().join(" "));
            return ExitCode::from(2);
        }
    };
    if let Err(full) = room::check(ROOM.0, ROOM.1) {
        return no_room(full);
    }
    specfleet_signals::listen();
    if let Err(mistake) = arguments.log.start() {
        specfleet_logs::say!("error: {mistake}");
        return ExitCode::from(2);
    }
    let outcome = actix::System::new().block_on(run(&arguments));
    let (error, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Input(error)) => (error, 2),
        Err(Failure::Run(error)) => (error, 1),
        Err(Failure::Interrupted) => (anyhow!("interrupted"), specfleet_signals::exit_code()),
    };
    specfleet_logs::say!("error: {}", in_one_line(&error));
    ExitCode::from(code)
}

/// An error and its causes, without those that the one before quotes already.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace('\n', " ")
}

async fn run(arguments: &AgentArguments) -> Result<(), Failure> {
    let AgentTask { tokenizer, prompt, settings, options, events, notices, mut check } =
        prepare(arguments).map_err(Failure::Input)?;
    for notice in notices {
        specfleet_logs::say!("note: {notice}");
    }
    let (connector, clock) = (options.connector.clone(), options.clock.clone());
    let device = Device::start(options).map_err(|error| Failure::Input(error.into()))?;
    let done = tokio::select! {
        done = reach(arguments, &device, &settings) => match done {
            Ok(()) => tokio::select! {
                done = answer(arguments, &device, &tokenizer, prompt, events, &settings, &mut check) => done,
                _ = specfleet_signals::asked() => Err(Failure::Interrupted),
            },
            failed => failed,
        },
        _ = specfleet_signals::asked() => Err(Failure::Interrupted),
    };
    // Both fail only if there is nothing left to end.
    let _ = device.send(Leave).await;
    let _ = tokio::time::timeout(Duration::from_secs(3), connector.drain()).await;
    for Standstill { length, .. } in clock.standstills() {
        specfleet_logs::say!("note: the process stood still for {:.1} s, which no figure contains", length.seconds());
    }
    done
}

/// Everything that is needed before the pool is.
struct AgentTask {
    tokenizer: Tokenizer,
    prompt: Arc<[u32]>,
    settings: Arc<DeviceSettings>,
    options: AgentOptions,
    events: mpsc::Receiver<DeviceEvent>,
    /// What the user should know beforehand.
    notices: Vec<String>,
    /// What is said of the pool's verifier once it is known.
    check: PairCheck,
}

fn prepare(arguments: &AgentArguments) -> Result<AgentTask> {
    let scenario = arguments.settings()?;
    let (model, tokenizer) = drafter(&scenario)?;
    check_tokenizer(&model, &tokenizer)?;
    let text = if arguments.raw_prompt {
        arguments.prompt.clone()
    } else {
        format!("Question: {}\nAnswer:", arguments.prompt)
    };
    let prompt: Arc<[u32]> = tokenizer.encode(&text).context("--prompt")?.into();
    let (method, notice, calibration) = method::method_for(&scenario)?;
    let of_another = calibration.as_ref().and_then(|key| belongs::drafter(key, &scenario));
    let settings = settings(&scenario, method, &model);
    let room = u32::try_from(prompt.len()).map_or(0, |tokens| settings.limit(tokens));
    anyhow::ensure!(
        room > 0 && !prompt.is_empty(),
        "--prompt: {} tokens, but it takes 1 to {}",
        prompt.len(),
        settings.context.saturating_sub(3)
    );
    let (server, server_name) = arguments.server()?;
    let shape = model.shape();
    let connector = Connector::new(ConnectorOptions {
        server,
        server_name,
        trust: arguments.trust()?,
        identity: arguments.identity()?,
        endpoints: 1,
        idle_timeout: Duration::from_nanos(scenario.pool.idle_timeout.0),
        limits: FrameLimits::for_pair(shape.vocab, shape.context),
    })?;
    let kv_bytes = scenario.model.drafter_kv_mebibytes as usize * (1 << 20);
    let (sender, events) = mpsc::channel(64);
    let settings = Arc::new(settings);
    let options = AgentOptions {
        device: DeviceId(0),
        settings: Arc::clone(&settings),
        drafter: Drafter::start(model, kv_bytes, useful_threads(scenario.model.drafter_threads.into()))?,
        connector,
        timer: Timer::start().context("cannot start the timer thread")?,
        tokenizer_digest: tokenizer.digest(),
        events: sender,
        clock: HostClock::start().context("cannot start the thread of the clock")?,
        admission: AdmissionToken::NONE,
        shares_clock: false,
        in_a_row: 0,
        journal: None,
    };
    let (notices, check) = (notice.into_iter().chain(of_another).collect(), PairCheck::new(calibration));
    Ok(AgentTask { tokenizer, prompt, settings, options, events, notices, check })
}

fn drafter(scenario: &Settings) -> Result<(Model, Tokenizer)> {
    let precision = match scenario.model.drafter_precision {
        Stored::F32 => Precision::F32,
        Stored::Q8_0 => Precision::Q8_0,
        Stored::Q4K => Precision::Q4K,
    };
    Ok(match &scenario.model.drafter {
        ModelChoice::Embedded => (Model::embedded(Embedded::Drafter, precision)?, Tokenizer::embedded()?),
        ModelChoice::Folder(folder) => (Model::load_dir(folder, precision)?, Tokenizer::load_dir(folder)?),
    })
}

/// What the device machine is told.
fn settings(scenario: &Settings, method: Method, drafter: &Model) -> DeviceSettings {
    let (shape, device) = (drafter.shape(), DeviceId(0));
    DeviceSettings {
        method,
        sampling: scenario.run.sampling,
        seed: scenario.run.seed,
        max_new_tokens: scenario.run.max_new_tokens,
        // Token ids and positions of any model fit `u32`.
        context: u32::try_from(shape.context).unwrap_or(u32::MAX),
        vocab: u32::try_from(shape.vocab).unwrap_or(u32::MAX),
        end_tokens: shape.eos.clone(),
        profile: scenario.device.profile(device).clone(),
        link: scenario.device.link(device).clone(),
        verdict_timeout: scenario.device.verdict_timeout,
        retry: scenario.device.retry,
        on_unreachable: scenario.run.on_unreachable,
        unreachable_after: scenario.run.unreachable_after,
        on_refused: OnRefused::Retry,
        latency_target: Span::ZERO,
        battery_nanojoules: 0,
        outages: None,
    }
}

/// Waits for the pool, unless the device may go on without it.
async fn reach(arguments: &AgentArguments, device: &Addr<Device>, settings: &DeviceSettings) -> Result<(), Failure> {
    let patience = arguments.patience().map_err(Failure::Input)?;
    if settings.on_unreachable == OnUnreachable::Local {
        return Ok(());
    }
    match tokio::time::timeout(patience, device.send(Ready)).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(Failure::Run(explained(error).context(format!("--connect {}", arguments.connect)))),
        Ok(Err(gone)) => Err(Failure::Run(gone.into())),
        Err(_) => {
            let last = device.send(LastLinkError).await.ok().flatten();
            let why = last.map_or_else(|| "no answer yet".to_owned(), |error| error.to_string());
            let (address, seconds) = (&arguments.connect, patience.as_secs_f64());
            Err(Failure::Run(anyhow!("cannot reach the pool at {address} within {seconds} s: {why}")))
        }
    }
}

/// An error, and how to go on where the pool's certificate is not the one that is trusted.
fn explained(error: AgentError) -> anyhow::Error {
    match &error {
        AgentError::Link(link) if link.is_about_certificate() => anyhow!(
            "{error}. A pool without pool.tls makes a new certificate whenever it starts: if it has been started again, take \
             the new one from it (the SHA-256 that it prints, or --certificate-out), or give it one that stays (pool.tls)"
        ),
        _ => error.into(),
    }
}

/// Prints the text as it comes, and the report.
async fn answer(
    arguments: &AgentArguments,
    device: &Addr<Device>,
    tokenizer: &Tokenizer,
    prompt: Arc<[u32]>,
    mut events: mpsc::Receiver<DeviceEvent>,
    settings: &DeviceSettings,
    check: &mut PairCheck,
) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure::Run(error);
    check.say(device).await;
    let mut meter = Meter::open();
    let generation = GenerationId { method: 0, prompt: 0, repetition: 0, pass: 0 };
    let finished = device.send(Generate { generation, data_set: 0, prompt, scheduled: None });
    let mut printer = Printer::default();
    let printed = show(arguments, tokenizer, &mut events, &mut meter, &mut printer);
    let both = async { tokio::join!(finished, printed) };
    let (finished, printed) = tokio::select! {
        done = both => done,
        never = say_why_it_waits(device) => match never {},
    };
    let finished: Result<GenerationRecord, AgentError> = finished.map_err(|gone| failed(gone.into()))?;
    let (rounds, text) = printed.map_err(failed)?;
    let mut record = finished.map_err(|error| failed(explained(error)))?;
    meter.correct(&mut record);
    let verifier = check.say(device).await;
    let report = Report { record: &record, rounds: &rounds, method: &settings.method.name, meter: &meter, verifier };
    if arguments.json {
        printer.write(format_args!("{}\n", report.json(&text)));
    } else {
        printer.write(format_args!("\n\n{}\n", report.text()));
    }
    match record.finish {
        FinishReason::Failed => {
            let last = device.send(LastLinkError).await.ok().flatten();
            let why = last.map_or_else(String::new, |error| format!(": {error}"));
            Err(failed(anyhow!("the generation failed: the pool went out of reach{why}")))
        }
        _ => printer.finish().context("cannot print").map_err(failed),
    }
}

/// Says why there is no connection to the pool, once for each reason that lasts. A text that waits for its pool looks like one
/// that is written slowly.
async fn say_why_it_waits(device: &Addr<Device>) -> Infallible {
    let (mut last, mut said) = (None, Vec::new());
    loop {
        tokio::time::sleep(LASTS).await;
        let now = device.send(LastLinkError).await.ok().flatten().map(|error| error.to_string());
        if let Some(reason) = now.clone().filter(|_| now == last)
            && !said.contains(&reason)
        {
            specfleet_logs::say!("note: no connection to the pool: {reason}");
            said.push(reason);
        }
        last = now;
    }
}

/// Prints each committed token's text at once; returns the rounds and the whole text. The generation goes on where nothing
/// can be printed: the pool has its session, and what was lost is said at the end.
async fn show(
    arguments: &AgentArguments,
    tokenizer: &Tokenizer,
    events: &mut mpsc::Receiver<DeviceEvent>,
    meter: &mut Meter,
    printer: &mut Printer,
) -> Result<(Vec<RoundRecord>, String)> {
    let (mut rounds, mut text) = (Vec::new(), String::new());
    let mut stream = tokenizer.stream();
    while let Some(DeviceEvent::Round { record, .. }) = events.recv().await {
        let new = stream.push(record.token)?;
        meter.read();
        if !arguments.json {
            printer.write(&new);
        }
        text.push_str(&new);
        rounds.push(record);
    }
    Ok((rounds, text))
}
