//! The commands for autoscalers: reads files, prints the result of [`crate::hpa`], and sets the exit code.

use std::{
    fs,
    io::{Read, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use vpn_types::parse_duration;

use crate::hpa::{self, Definition, Event, Level, Manifest, Options, parse_definition, parse_event};

/// Autoscalers that scale on slots.
#[derive(Clone, Debug, Subcommand)]
pub enum HpaCommand {
    /// Find HorizontalPodAutoscalers and ScaledObjects that oscillate, saturate or never move. The exit code is 1 if
    /// there is an error among the findings, and 2 if a file cannot be read.
    Lint(Lint),
    /// Draw the replicas over time, as the controller of Kubernetes 1.36 sets them.
    Simulate(Box<Simulate>),
}

/// The arguments of `hpa lint`.
#[derive(Clone, Debug, Args)]
pub struct Lint {
    /// Files with manifests, or - for the standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,

    /// Print only the manifests, with corrections.
    #[arg(long)]
    fix: bool,

    /// Slots in reach. With a MaskProvider as the target: devices that the account allows.
    #[arg(long)]
    slots: Option<u32>,
}

/// The arguments of `hpa simulate`.
#[derive(Clone, Debug, Args)]
pub struct Simulate {
    /// File with a HorizontalPodAutoscaler or a ScaledObject, or - for the standard input.
    file: String,

    /// Name of the autoscaler, if the file has more than one.
    #[arg(long)]
    name: Option<String>,

    /// Slots in reach.
    #[arg(long)]
    slots: u32,

    /// Replicas at the start. Default: the minimum. With a MaskProvider as the target: the slots.
    #[arg(long, value_name = "REPLICAS")]
    start: Option<u32>,

    /// How long to simulate.
    #[arg(long, default_value = "30m", value_parser = seconds)]
    duration: u64,

    /// The flag --horizontal-pod-autoscaler-sync-period of kube-controller-manager.
    #[arg(long, default_value = "15s", value_parser = seconds)]
    sync_period: u64,

    /// The flag --horizontal-pod-autoscaler-downscale-stabilization of kube-controller-manager.
    #[arg(long, default_value = "5m", value_parser = seconds)]
    downscale_stabilization: u64,

    /// The flag --horizontal-pod-autoscaler-tolerance of kube-controller-manager.
    #[arg(long, default_value = "0.1", value_parser = tolerance)]
    tolerance: f64,

    /// Slots that the workload leaves. Default: the label reserve in the metric's selector, or 0.
    #[arg(long)]
    reserve: Option<u32>,

    /// A change on the way: TIME=slots:NUMBER, or TIME=others:NUMBER for slots that other Masks want.
    #[arg(long = "event", value_name = "EVENT", value_parser = parse_event)]
    events: Vec<Event>,

    /// Time from the creation of a Pod until it is ready and has a slot.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    pod_delay: u64,

    /// Age of the metrics that the controller reads.
    #[arg(long, default_value = "0s", value_parser = seconds)]
    metric_delay: u64,

    /// A metric: NAME=EXPRESSION, with slots, others, replicas, ready, used, free, waiting, claimable and reserve. For
    /// a metric of type Pods, the value of each ready Pod.
    #[arg(long = "metric", value_name = "METRIC", value_parser = parse_definition)]
    definitions: Vec<Definition>,

    /// Format of the output.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Format of a simulation.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A plot, the changes and a verdict.
    Text,
    /// A picture.
    Svg,
    /// A table.
    Csv,
}

/// The exit code if a finding is an error.
const ERRORS_FOUND: u8 = 1;

/// The exit code if the input is not usable.
const UNUSABLE: u8 = 2;

impl HpaCommand {
    /// Runs the command.
    pub fn run(&self) -> ExitCode {
        let (output, code) = self.output();
        // A reader that stops reading, such as head, is no error.
        let _ = std::io::stdout().write_all(output.as_bytes());
        ExitCode::from(code)
    }

    /// Returns the standard output and the exit code.
    fn output(&self) -> (String, u8) {
        match self {
            Self::Lint(lint) => lint.run(),
            Self::Simulate(simulate) => simulate.run().map(|output| (output, 0)).unwrap_or_else(|error| {
                eprintln!("error: {error}");
                (String::new(), UNUSABLE)
            }),
        }
    }
}

impl Lint {
    /// Returns the output and the exit code. Problems with one file do not hide the findings about the others.
    fn run(&self) -> (String, u8) {
        let (mut output, mut code) = (String::new(), 0);
        for file in &self.files {
            let documents = match read(file).and_then(|text| hpa::read(file, &text)) {
                Ok(documents) => documents,
                Err(error) => {
                    eprintln!("error: {error}");
                    code = UNUSABLE;
                    continue;
                }
            };
            documents.skipped.iter().for_each(|note| eprintln!("note: {note}"));
            for error in &documents.errors {
                eprintln!("error: {error}");
                code = UNUSABLE;
            }
            for manifest in &documents.manifests {
                let findings = hpa::findings(manifest, self.slots);
                if findings.iter().any(|finding| finding.level == Level::Error) {
                    code = code.max(ERRORS_FOUND);
                }
                match self.show(manifest, &findings) {
                    Ok(text) => output += &text,
                    Err(error) => {
                        eprintln!("error: {}: the correction failed: {error}", manifest.place);
                        code = UNUSABLE;
                    }
                }
            }
        }
        (output, code)
    }

    fn show(&self, manifest: &Manifest, findings: &[hpa::Finding]) -> Result<String, String> {
        let corrected = hpa::corrected(manifest, self.slots)?;
        let report = hpa::render(manifest, findings);
        if self.fix {
            eprint!("{report}");
            return Ok(format!("---\n{}", corrected.map_or_else(|| hpa::write(&manifest.raw), Ok)?));
        }
        Ok(match corrected {
            Some(corrected) => format!("{report}\nCorrected:\n\n{corrected}\n"),
            None => report + "\n",
        })
    }
}

impl Simulate {
    fn run(&self) -> Result<String, String> {
        let documents = hpa::read(&self.file, &read(&self.file)?)?;
        documents.errors.iter().for_each(|error| eprintln!("note: {error}"));
        let manifest = self.choose(&documents.manifests)?;
        manifest.unknown.iter().for_each(|field| eprintln!("note: {}: there is no field {field}", manifest.place));
        let mut settings = hpa::controller::Settings::default();
        (settings.tolerance, settings.downscale_stabilization) = (self.tolerance, self.downscale_stabilization);
        let options = Options {
            slots: self.slots,
            start: self.start,
            duration: self.duration,
            sync_period: self.sync_period,
            reserve: self.reserve,
            pod_delay: self.pod_delay,
            metric_delay: self.metric_delay,
            events: self.events.clone(),
            definitions: self.definitions.clone(),
            settings,
        };
        let autoscaler = &manifest.autoscaler;
        let run = hpa::simulate(autoscaler, &options).map_err(|error| format!("{}: {error}", manifest.place))?;
        let verdict = hpa::verdict(autoscaler, &options, &run);
        Ok(match self.output {
            Output::Text => hpa::text(autoscaler, &options, &run, &verdict),
            Output::Svg => hpa::svg(autoscaler, &run, &verdict),
            Output::Csv => hpa::csv(&run),
        })
    }

    fn choose<'a>(&self, manifests: &'a [Manifest]) -> Result<&'a Manifest, String> {
        let wanted = |it: &&Manifest| self.name.as_ref().is_none_or(|name| *name == it.autoscaler.name);
        match manifests.iter().filter(wanted).collect::<Vec<_>>()[..] {
            [one] => Ok(one),
            _ => {
                let names: Vec<_> = manifests.iter().map(Manifest::title).collect();
                Err(format!("{}: choose an autoscaler with --name; there are {}", self.file, names.join(", ")))
            }
        }
    }
}

fn read(file: &str) -> Result<String, String> {
    let mut text = String::new();
    let result = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| text),
        path => fs::read_to_string(path),
    };
    result.map_err(|error| format!("{file}: {error}"))
}

fn seconds(text: &str) -> Result<u64, String> {
    let duration: Duration = parse_duration(text).map_err(|error| error.to_string())?;
    hpa::seconds(duration)
}

fn tolerance(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|it| (0.0..=1.0).contains(it)).ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests;
