//! Lines handed to another system: the tests with real servers, with more kills. The judge of each reads the destination.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;

use crate::campaign::{Setup, Tally};
use crate::trouble::{During, Result, Trouble};

/// Where lines go.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum To {
    /// One node of NATS JetStream.
    Nats,
    /// Three nodes; the one that leads the stream is killed.
    NatsCluster,
    /// Apache Kafka, read as committed.
    Kafka,
    /// SeaweedFS.
    S3,
    /// OpenSearch, by the ids of documents.
    Opensearch,
}

impl To {
    /// The test, and how many kills it makes in the ten minutes that a test may take, on a busy machine.
    fn round(self) -> (&'static str, u64) {
        match self {
            To::Nats => ("nats::a_subject_holds_every_line_once_and_in_order_through_kills", 40),
            To::NatsCluster => {
                ("nats::a_replicated_subject_holds_every_line_once_through_kills_of_its_leader", 25)
            }
            To::Kafka => ("kafka::a_topic_holds_every_line_once_and_in_order_through_kills", 20),
            To::S3 => ("s3::objects_hold_every_line_once_and_in_order_through_kills", 20),
            To::Opensearch => ("receivers::an_index_holds_every_line_once_through_kills", 20),
        }
    }
}

/// Kills the service, the server, or both, at random, `setup.count` times, and reads the destination after each round.
pub fn run(setup: &Setup, to: To, tally: &mut Tally) {
    let (test, kills_max) = to.round();
    let name = to.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let command = format!("handoff --to {name}");
    let mut seen = Tally::default();
    let rounds = setup.stores(&command, kills_max, &mut seen, |folder, seed, kills| {
        round(folder, test, (seed, kills)).map(|skipped| (kills, skipped))
    });
    for (kills, skipped) in rounds {
        match skipped {
            None => tally.pass(kills),
            Some(why) => tally.skip(kills, &why),
        }
    }
    tally.add_failed(&seen);
}

/// One run of the test. Returns why it was skipped, if it was.
fn round(folder: &Path, test: &str, (seed, kills): (u64, u64)) -> Result<Option<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let skipped = folder.join("skipped");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["test", "--quiet", "--locked", "--package", "spillq", "--features", "kafka", "--test", "it"])
        .args(["--", "--exact", test])
        .env("SPILLQ_TEST_KILLS", kills.to_string())
        .env("SPILLQ_TEST_SEED", seed.to_string())
        .env("SPILLQ_TEST_SKIPPED", &skipped)
        .current_dir(root)
        .stdin(Stdio::null());
    let output = command.output().during("start cargo")?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    fs::write(folder.join("output"), &text).during("keep the output")?;
    if !output.status.success() {
        let why = text.lines().find(|line| line.contains("panicked")).unwrap_or("it did not end well");
        return Err(Trouble::new(format!("{test}: {why}")));
    }
    if !text.contains("1 passed") {
        return Err(Trouble::new(format!("there is no test {test}")));
    }
    // What a test lacks is in the second field: it counts as passed.
    let lacks = fs::read_to_string(&skipped).unwrap_or_default();
    Ok(lacks.lines().find_map(|line| line.split('\t').nth(1)).map(|lacks| format!("it needs {lacks}")))
}
