//! Lines into a topic of a real Apache Kafka: each once and in order for a reader of committed records, whether spillq or the
//! broker is killed; and wrong setups.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use krafka::Kafka as Client;
use krafka::admin::{CreatePartitionsOptions, CreateTopicsOptions, NewTopic};
use krafka::producer::{Record, TransactionalProducer};

use crate::chaos::{self, append, every_line_once, owned, start, wait_for_word, wait_until};
use crate::receiver::Receiver;
use crate::support::{Bounded, Service, program, run, write_config};

const WAIT: Duration = Duration::from_secs(60);

/// One broker with both topics.
struct Kafka {
    server: Receiver,
}

fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * WAIT, work).await.expect("Kafka answers in time") })
}

impl Kafka {
    fn start<F>(of: F) -> Option<Kafka> {
        let server = Receiver::start_with(of, ("kafka", 1), "", "the packages of Maven")?;
        let kafka = Kafka { server };
        kafka.make("lines", "max.message.bytes", "200000");
        kafka.make("checkpoints", "cleanup.policy", "compact");
        Some(kafka)
    }

    fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.server.port.number)
    }

    async fn client(&self) -> Client {
        loop {
            match Client::builder(self.broker()).connect().await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn make(&self, topic: &str, key: &str, value: &str) {
        block(async {
            let admin = self.client().await.admin();
            loop {
                let topic = NewTopic::new(topic, 1, 1).unwrap().with_config(key, value);
                let made = admin.create_topics([topic], CreateTopicsOptions::default()).await;
                if made.is_ok_and(|made| made.values().all(Result::is_ok)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    /// The seq and the line of each committed record, in order, as Kafka's own reader sees them.
    fn records(&self) -> Vec<(u64, String)> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/kafka");
        let read =
            program(script).arg("read").arg(self.server.port.number.to_string()).arg("lines").finished();
        let text = String::from_utf8(read.stdout).unwrap();
        let record = |line: &str| {
            let (headers, value) = line.split_once('\t').unwrap_or_else(|| panic!("{line:?}"));
            let seq = headers.split(',').find_map(|header| header.strip_prefix("spillq-seq:")).unwrap();
            (seq.parse().unwrap(), value.to_owned())
        };
        text.lines().map(record).collect()
    }

    fn config(&self, folder: &Path, more: &str) -> PathBuf {
        let kind = format!(
            "kind = \"kafka\"\nbrokers = [{:?}]\ntopic = \"lines\"\ncheckpoint_topic = \"checkpoints\"\n{more}\n",
            self.broker()
        );
        write_config(folder, &[chaos::settings(), &kind].concat())
    }
}

#[test]
fn a_topic_holds_every_line_once_and_in_order_through_kills() {
    let Some(mut kafka) = Kafka::start(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = kafka.config(folder.path(), "");
    let (log, data_dir) = (folder.path().join("a.log"), folder.path().join("q"));
    // A Java program takes seconds to start.
    let lines = chaos::through_kills_of(&log, &data_dir, &config, (&mut kafka.server, 5));
    let found = kafka.records();
    every_line_once(found, lines);
}

#[test]
fn lines_that_come_late_or_again_are_sent_once_and_a_line_that_is_too_long_is_a_dead_letter() {
    let Some(kafka) = Kafka::start(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(300_000);
    append(folder.path(), &format!("one\ntwo\n{long}\nfour\n"));
    let config = kafka.config(folder.path(), "");
    let text = fs::read_to_string(&config).unwrap();
    // Nobody listens there.
    fs::write(&config, text.replace(&kafka.broker(), "127.0.0.1:1")).unwrap();
    let mut service = start(folder.path(), &config);
    wait_for_word(&mut service, "connecting");
    let command = |args: &[&str]| chaos::command(folder.path(), args);
    command(&["dead-letter", "park", "2"]);
    assert_eq!(service.stop(), 0);
    let config = kafka.config(folder.path(), "");
    let mut service = start(folder.path(), &config);
    let status = service.wait("the others are there", |status| status.groups[0].ack_floor == 4);
    assert_eq!(status.groups[0].dead_letters, 2, "{:?}", status.groups[0].last_failure);
    command(&["dead-letter", "retry", "2"]);
    wait_until(&owned(&[(1, "one"), (4, "four"), (2, "two")]), || kafka.records());

    // All of them again: none is added but the new one.
    command(&["group", "seek", "default", "--to", "beginning", "--missing"]);
    append(folder.path(), "five\n");
    let all_done = |service: &mut Service| {
        service.wait("all are done", |status| {
            status.groups[0].ack_floor == 5 && status.groups[0].lag_lines == 0
        });
    };
    all_done(&mut service);
    let seqs = || kafka.records().into_iter().map(|(seq, _)| seq).collect::<Vec<u64>>();
    assert_eq!(seqs(), [1, 4, 2, 5]);
    command(&["group", "seek", "default", "--to", "4", "--again"]);
    all_done(&mut service);
    wait_until(&vec![1, 4, 2, 5, 4, 5], seqs);
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_wrong_setup_is_reported_and_of_two_copies_the_first_is_refused() {
    let Some(kafka) = Kafka::start(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "one\ntwo\n");
    let config = kafka.config(folder.path(), "");
    let text = fs::read_to_string(&config).unwrap();
    kafka.make("kept", "cleanup.policy", "delete");
    for (from, to, why) in [
        ("topic = \"lines\"", "topic = \"nothing\"", "there is no topic nothing"),
        ("\"checkpoints\"", "\"kept\"", "set cleanup.policy=compact"),
    ] {
        fs::write(&config, text.replacen(from, to, 1)).unwrap();
        let mut service = start(folder.path(), &config);
        wait_for_word(&mut service, why);
        service.wait("it is refused", |status| status.groups[0].state == "refused");
        assert_eq!(service.stop(), 0);
    }
    fs::write(&config, text).unwrap();
    let mut service = start(folder.path(), &config);
    service.wait("they are there", |status| status.groups[0].ack_floor == 2);
    assert_eq!(service.stop(), 0);
    let copy = tempfile::tempdir().unwrap();
    run("cp", &["-a", folder.path().join("q").to_str().unwrap(), copy.path().to_str().unwrap()]);
    let mut service = start(folder.path(), &config);
    append(folder.path(), "three\n");
    service.wait("the third is there", |status| status.groups[0].ack_floor == 3);
    let mut second = start(copy.path(), &kafka.config(copy.path(), ""));
    fs::write(copy.path().join("x.log"), "three\nfour\n").unwrap();
    second.wait("it continues behind what is there", |status| status.groups[0].ack_floor == 4);
    append(folder.path(), "four\nfive\n");
    wait_for_word(&mut service, "another spillq with a copy of this data dir");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    assert_eq!(second.stop(), 0);
    assert_eq!(service.stop(), 0);
    chaos::a_restored_store_is_refused(
        folder.path(),
        |folder| kafka.config(folder, ""),
        "this store was restored",
    );
    assert_eq!(kafka.records(), owned(&[(1, "one"), (2, "two"), (3, "three"), (4, "four")]));
}

/// A transaction of somebody else in the topic of checkpoints, before ours: a reader of committed records stops there.
#[test]
fn an_open_transaction_of_another_producer_does_not_hide_the_checkpoint() {
    let Some(kafka) = Kafka::start(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "one\n");
    let config = kafka.config(folder.path(), "");
    let mut service = start(folder.path(), &config);
    service.wait("it is there", |status| status.groups[0].ack_floor == 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let other: TransactionalProducer = runtime.block_on(async {
        let client = kafka.client().await;
        let other = client.producer().build_transactional("somebody-else").await.unwrap();
        other.begin().unwrap();
        let record = Record::new("checkpoints", "1-900").key("2-0000000000000001-0").partition(0);
        assert!(other.send(record).await.unwrap().is_persisted());
        other
    });
    append(folder.path(), "two\n");
    service.wait("the second is there", |status| status.groups[0].ack_floor == 2);
    service.kill();
    // Its checkpoint is behind the open transaction: without it, both lines would be sent again.
    let mut service = start(folder.path(), &config);
    service.wait("it runs", |_| true);
    chaos::command(folder.path(), &["group", "seek", "default", "--to", "beginning", "--missing"]);
    append(folder.path(), "three\n");
    wait_for_word(&mut service, "a transaction of another producer in this topic may be open");
    runtime.block_on(async { other.abort().await.unwrap() });
    service.wait("the third is there", |status| {
        status.groups[0].ack_floor == 3 && status.groups[0].lag_lines == 0
    });
    assert_eq!(kafka.records(), owned(&[(1, "one"), (2, "two"), (3, "three")]));
    assert_eq!(service.stop(), 0);
}

/// A broker that stands still in the middle of a commit: nobody knows whether it was made, until the next connection has asked.
#[test]
fn a_commit_whose_answer_is_late_is_found_out_and_more_partitions_hide_no_checkpoint() {
    let Some(kafka) = Kafka::start(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = kafka.config(folder.path(), "");
    let mut service = start(folder.path(), &config);
    let mut written = 0;
    let mut write = |lines: u64| {
        let text: String = (written..written + lines).map(|n| format!("line {n}\n")).collect();
        append(folder.path(), &text);
        written += lines;
        written
    };
    let all = write(5_000);
    service.wait("some lines are there", |status| status.groups[0].ack_floor > 0);
    kafka.server.pause(true);
    // Longer than any answer may take.
    wait_for_word(&mut service, "timed out");
    kafka.server.pause(false);
    service.wait("all are there", |status| status.groups[0].ack_floor == all);

    block(async {
        let admin = kafka.client().await.admin();
        let made = admin.create_partitions([("checkpoints", 3)], CreatePartitionsOptions::default()).await;
        made.unwrap().into_values().for_each(|made| made.unwrap());
    });
    assert_eq!(service.stop(), 0);
    let mut service = start(folder.path(), &config);
    service.wait("it runs", |_| true);
    chaos::command(folder.path(), &["group", "seek", "default", "--to", "beginning", "--missing"]);
    let all = write(10);
    service.wait("all are done again", |status| {
        status.groups[0].ack_floor == all && status.groups[0].lag_lines == 0
    });
    assert_eq!(service.stop(), 0);
    let expected: Vec<(u64, String)> = (0..all).map(|n| (n + 1, format!("line {n}"))).collect();
    assert_eq!(kafka.records(), expected);
}
