//! Lines into subjects of a real NATS JetStream, one node and a cluster: each once, whether spillq or a server is killed; and wrong
//! setups. `SPILLQ_TEST_NATS` names another program than Debian's nats-server.

use std::fs;
use std::future::Future;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context};

use crate::chaos::{self, append, every_line_once, owned, start, wait_for_word, wait_until};
use crate::support::{Bounded, Port, Process, needs, program, run, spillq, wait_for, write_config};

/// The least rights, as docs/how-to/destinations/nats.md has them.
const USERS: &str = r#"
authorization {
  users: [
    { user: root, password: root }
    { user: spillq, password: secret, permissions: {
        publish: ["lines.fills", "$JS.API.STREAM.INFO.LINES", "$JS.API.STREAM.MSG.GET.LINES"]
        subscribe: ["_INBOX.>"]
    } }
  ]
}
"#;
const WAIT: Duration = Duration::from_secs(30);

/// One node, killed when it is dropped.
struct Node {
    folder: PathBuf,
    port: Port,
    more: String,
    process: Option<Process>,
}

impl Node {
    fn new(folder: &Path, port: Port, more: &str) -> Node {
        fs::create_dir_all(folder).unwrap();
        Node { folder: folder.to_owned(), port, more: more.to_owned(), process: None }
    }

    fn start(&mut self) {
        let name = self.folder.file_name().unwrap().to_string_lossy().into_owned();
        let config = format!(
            "server_name: {name:?}\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?} }}\n{USERS}{}",
            self.port.number,
            self.folder.join("data"),
            self.more
        );
        let (conf, log) = (self.folder.join("conf"), self.folder.join("log"));
        fs::write(&conf, config).unwrap();
        let server = std::env::var("SPILLQ_TEST_NATS").unwrap_or_else(|_| "nats-server".to_owned());
        self.process = Some(program(server).arg("-c").arg(conf).arg("-l").arg(&log).started());
        let is_up = || TcpStream::connect(("127.0.0.1", self.port.number)).is_ok();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        assert!(wait_for(|| is_up().then_some(())).is_some(), "{}", said());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.killed();
        }
    }

    fn url(&self) -> String {
        format!("nats://spillq@127.0.0.1:{}", self.port.number)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One node with the stream.
struct Nats {
    node: Node,
    folder: tempfile::TempDir,
}

impl Nats {
    fn start(more: &str) -> Nats {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::new(&folder.path().join("one"), Port::reserved(), more);
        node.start();
        Nats { node, folder }
    }

    fn with_stream(more: &str, change: impl FnOnce(&mut Config)) -> Nats {
        let nats = Nats::start(more);
        let mut stream = lines_stream(1);
        change(&mut stream);
        nats.make(stream);
        nats
    }

    fn make(&self, stream: Config) {
        admin(&[self.node.port.number], async |context| {
            context.create_or_update_stream(stream).await.unwrap();
        });
    }

    fn delete(&self) {
        admin(&[self.node.port.number], async |context| {
            context.delete_stream("LINES").await.unwrap();
        });
    }

    fn publish(&self, text: &str) {
        let text = text.to_owned();
        admin(&[self.node.port.number], async |context| {
            context.publish("lines.fills", text.into()).await.unwrap().await.unwrap();
        });
    }

    fn messages(&self) -> Vec<(u64, String)> {
        messages(&[self.node.port.number])
    }
}

impl chaos::Server for Nats {
    fn kill(&mut self) {
        self.node.kill();
    }

    fn start(&mut self) {
        self.node.start();
    }
}

fn lines_stream(replicas: usize) -> Config {
    Config {
        name: "LINES".to_owned(),
        subjects: vec!["lines.fills".to_owned()],
        num_replicas: replicas,
        ..Config::default()
    }
}

fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(4 * WAIT, work).await.expect("NATS answers in time") })
}

/// Does something as the operator, as soon as one of the servers answers and has a leader.
fn admin<T>(ports: &[u16], work: impl AsyncFnOnce(Context) -> T) -> T {
    block(async {
        let servers: Vec<async_nats::ServerAddr> =
            ports.iter().map(|port| format!("nats://127.0.0.1:{port}").parse().unwrap()).collect();
        loop {
            let options = ConnectOptions::new().user_and_password("root".to_owned(), "root".to_owned());
            if let Ok(client) = options.connect(&servers[..]).await {
                let context = jetstream::new(client);
                // Any answer will do: JetStream is up.
                let asked = context.get_stream("LINES").await;
                if asked.is_ok() || matches!(asked.unwrap_err().kind(), GetStreamErrorKind::JetStream(_)) {
                    return work(context).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

async fn stream(context: &Context) -> Stream {
    loop {
        if let Ok(stream) = context.get_stream("LINES").await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The seq and the line of each message that has one, in the order of the stream.
fn messages(ports: &[u16]) -> Vec<(u64, String)> {
    admin(ports, async |context| {
        let stream = stream(&context).await;
        let state = stream.get_info().await.unwrap().state;
        let mut found = Vec::new();
        for at in state.first_sequence.max(1)..=state.last_sequence {
            let message = match stream.get_raw_message(at).await {
                // It became too old meanwhile.
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => continue,
                message => message.unwrap(),
            };
            if let Some(seq) = message.headers.get("Spillq-Seq") {
                let line = String::from_utf8(message.payload.to_vec()).unwrap();
                found.push((seq.as_str().parse().unwrap(), line));
            }
        }
        found
    })
}

fn config(folder: &Path, url: &str, more: &str) -> PathBuf {
    let kind = format!(
        "kind = \"nats\"\nurl = {url:?}\nstream = \"LINES\"\nsubject = \"lines.fills\"\npassword = \"file:password\"\n{more}\n"
    );
    write_config(folder, &[chaos::settings(), &kind].concat())
}

fn with_password(password: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), password).unwrap();
    folder
}

#[test]
fn a_subject_holds_every_line_once_and_in_order_through_kills() {
    needs!("nats-server");
    let folder = with_password("secret\n");
    let mut nats = Nats::with_stream("", |_| {});
    let config = config(folder.path(), &nats.node.url(), "");
    let log = folder.path().join("a.log");
    let lines = chaos::through_kills(&log, &folder.path().join("q"), &config, &mut nats);
    every_line_once(nats.messages(), lines);
}

/// Three nodes. Whoever leads the stream is killed.
struct Cluster {
    nodes: Vec<Node>,
    killed: Option<usize>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let routes: Vec<Port> = (0..3).map(|_| Port::reserved()).collect();
        let list: Vec<String> =
            routes.iter().map(|port| format!("\"nats://127.0.0.1:{}\"", port.number)).collect();
        let mut nodes = Vec::new();
        for (nth, route) in routes.into_iter().enumerate() {
            // Go listens without SO_REUSEADDR's courtesy to a bound socket of another option: it is free from here on.
            let number = route.number;
            drop(route);
            let more = format!(
                "cluster {{ name: three, listen: \"127.0.0.1:{number}\", routes: [{}] }}",
                list.join(", ")
            );
            nodes.push(Node::new(&folder.path().join(format!("node-{nth}")), Port::reserved(), &more));
        }
        nodes.iter_mut().for_each(Node::start);
        let cluster = Cluster { nodes, killed: None, _folder: folder };
        admin(&cluster.ports(), async |context| {
            // All three have to be known before they can be asked for.
            while context.create_stream(lines_stream(3)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        cluster
    }

    fn ports(&self) -> Vec<u16> {
        let is_up = |(nth, _): &(usize, &Node)| self.killed != Some(*nth);
        self.nodes.iter().enumerate().filter(is_up).map(|(_, node)| node.port.number).collect()
    }

    fn url(&self) -> String {
        self.nodes.iter().map(Node::url).collect::<Vec<_>>().join(",")
    }
}

impl chaos::Server for Cluster {
    fn kill(&mut self) {
        let leader = admin(&self.ports(), async |context| {
            loop {
                let info = stream(&context).await.get_info().await.ok();
                if let Some(leader) = info.and_then(|info| info.cluster?.leader) {
                    return leader;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let nth = self.nodes.iter().position(|node| node.folder.ends_with(&leader)).unwrap();
        self.nodes[nth].kill();
        self.killed = Some(nth);
    }

    fn start(&mut self) {
        let Some(nth) = self.killed.take() else { return };
        self.nodes[nth].start();
    }
}

#[test]
fn a_replicated_subject_holds_every_line_once_through_kills_of_its_leader() {
    needs!("nats-server");
    let folder = with_password("secret");
    let mut cluster = Cluster::start();
    let config = config(folder.path(), &cluster.url(), "");
    let log = folder.path().join("a.log");
    let lines = chaos::through_kills(&log, &folder.path().join("q"), &config, &mut cluster);
    every_line_once(messages(&cluster.ports()), lines);
}

#[test]
fn a_wrong_setup_is_reported_and_loses_nothing() {
    needs!("nats-server");
    let folder = with_password("wrong");
    fs::write(folder.path().join("a.log"), "one\ntwo\n\nfour\n").unwrap();
    let mut nats = Nats::start("");
    chaos::Server::kill(&mut nats);
    let config_file = config(folder.path(), &nats.node.url(), "");
    let mut service = start(folder.path(), &config_file);
    wait_for_word(&mut service, "no connection");
    service.wait("an outage is not reported as a wrong setup", |status| status.groups[0].state != "refused");
    chaos::Server::start(&mut nats);
    wait_for_word(&mut service, "authorization violation");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    fs::write(folder.path().join("password"), "secret\n").unwrap();
    wait_for_word(&mut service, "the server has no stream LINES");
    let wrong = |change: &dyn Fn(&mut Config)| {
        let mut stream = lines_stream(1);
        change(&mut stream);
        nats.make(stream);
    };
    wrong(&|stream| stream.subjects = vec!["lines.>".to_owned()]);
    wait_for_word(&mut service, "it must take lines.fills and no other");
    wrong(&|stream| stream.max_messages_per_subject = 1);
    wait_for_word(&mut service, "--max-msgs-per-subject=-1");
    nats.delete();
    wrong(&|stream| stream.retention = jetstream::stream::RetentionPolicy::WorkQueue);
    wait_for_word(&mut service, "--retention limits");
    nats.delete();
    wrong(&|stream| stream.storage = jetstream::stream::StorageType::Memory);
    wait_for_word(&mut service, "--storage file");
    nats.delete();
    wrong(&|_| {});
    service.wait("all is there", |status| status.groups[0].ack_floor == 4);
    let all = owned(&[(1, "one"), (2, "two"), (3, ""), (4, "four")]);
    assert_eq!(nats.messages(), all);

    // Another store, with the same seqs.
    let other = with_password("secret");
    fs::write(other.path().join("a.log"), "uno\n").unwrap();
    let mut strange = start(other.path(), &config(other.path(), &nats.node.url(), ""));
    wait_for_word(&mut strange, "belongs to another store");
    assert_eq!(strange.stop(), 0);
    assert_eq!(nats.messages(), all, "nothing was added");

    // Another publisher: its message hides the note.
    nats.publish("theirs");
    fs::write(folder.path().join("b.log"), "five\n").unwrap();
    wait_for_word(&mut service, "somebody else publishes to lines.fills");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_denied_publish_is_refused_and_not_taken_for_an_outage() {
    needs!("nats-server");
    let folder = with_password("root");
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let nats = Nats::with_stream("", |_| {});
    // May look, but not publish.
    let url = nats.node.url();
    fs::write(folder.path().join("password"), "secret").unwrap();
    let kind = format!(
        "kind = \"nats\"\nurl = {url:?}\nstream = \"LINES\"\nsubject = \"lines.other\"\npassword = \"file:password\"\n"
    );
    let config = write_config(folder.path(), &[chaos::settings(), &kind].concat());
    let mut stream = lines_stream(1);
    stream.subjects = vec!["lines.other".to_owned()];
    nats.make(stream);
    let mut service = start(folder.path(), &config);
    wait_for_word(&mut service, "ermissions");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_line_that_comes_late_or_again_is_stored_once_also_over_tls() {
    needs!("nats-server", "openssl");
    let folder = with_password("secret");
    fs::write(folder.path().join("a.log"), "one\ntwo\nthree\nfour\n").unwrap();
    let certificates = tempfile::tempdir().unwrap();
    chaos::certificates(certificates.path());
    let path = |name: &str| certificates.path().join(name).display().to_string();
    let mut nats = Nats::with_stream("", |_| {});
    chaos::Server::kill(&mut nats);
    // The operator of this test speaks no TLS.
    nats.node.more = format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}\nallow_non_tls: true\n",
        path("leaf.pem"),
        path("leaf.key")
    );
    let url = format!("tls://spillq@localhost:{}", nats.node.port.number);
    let ca = path("ca.pem");
    let with_ca = || config(folder.path(), &url, &format!("ca_file = {ca:?}"));
    let command = |args: &[&str]| chaos::command(folder.path(), args);
    let mut service = start(folder.path(), &with_ca());
    wait_for_word(&mut service, "no connection");
    command(&["dead-letter", "park", "2"]);
    chaos::Server::start(&mut nats);
    service.wait("the others are there", |status| status.groups[0].ack_floor == 4);
    command(&["dead-letter", "retry", "2"]);
    wait_until(&owned(&[(1, "one"), (3, "three"), (4, "four"), (2, "two")]), || nats.messages());

    // All of them again: none is added.
    command(&["group", "seek", "default", "--to", "beginning", "--missing"]);
    fs::write(folder.path().join("b.log"), "five\n").unwrap();
    service.wait("all are done again", |status| {
        status.groups[0].ack_floor == 5 && status.groups[0].lag_lines == 0
    });
    let seqs = || -> Vec<u64> { nats.messages().into_iter().map(|(seq, _)| seq).collect() };
    assert_eq!(seqs(), [1, 3, 4, 2, 5]);
    // With --again each is added once more, after the newest, and a message without a line says so.
    command(&["group", "seek", "default", "--to", "4", "--again"]);
    wait_until(&vec![1, 3, 4, 2, 5, 4, 5], seqs);
    service.wait("they are done", |status| status.groups[0].lag_lines == 0);
    assert_eq!(service.stop(), 0);

    // A server that is not trusted gets nothing.
    let mut service = start(folder.path(), &config(folder.path(), &url, ""));
    fs::write(folder.path().join("c.log"), "six\n").unwrap();
    wait_for_word(&mut service, "TLS");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    assert_eq!(service.stop(), 0);
    let mut service = start(folder.path(), &with_ca());
    service.wait("the sixth is there", |status| status.groups[0].ack_floor == 6);
    assert_eq!(service.stop(), 0);
}

/// A crash without a sync, or a failover to a replica that was behind.
#[test]
fn lines_that_the_server_has_lost_are_reported_and_delivered_again_on_request() {
    needs!("nats-server");
    let folder = with_password("secret");
    let mut nats = Nats::with_stream("", |_| {});
    let data = nats.node.folder.join("data");
    let config = config(folder.path(), &nats.node.url(), "");
    chaos::lines_are_lost_and_delivered_again(folder.path(), &config, (&mut nats, &data), Nats::messages);
}

#[test]
fn messages_that_are_too_old_are_not_lost_and_a_line_that_is_too_long_is_dead_lettered() {
    needs!("nats-server");
    let folder = with_password("secret");
    // 1 MiB is what the server takes in one message.
    let long = "x".repeat(2 << 20);
    fs::write(folder.path().join("a.log"), format!("one\n{long}\nthree\n")).unwrap();
    let nats = Nats::with_stream("", |stream| stream.max_age = Duration::from_secs(1));
    let config = config(folder.path(), &nats.node.url(), "");
    let mut service = start(folder.path(), &config);
    let status = service.wait("all is settled", |status| status.groups[0].ack_floor == 3);
    assert_eq!(status.groups[0].dead_letters, 1, "{:?}", status.groups[0].last_failure);
    wait_until(&Vec::new(), || nats.messages());
    fs::write(folder.path().join("b.log"), "four\n").unwrap();
    service.wait("the fourth is there", |status| status.groups[0].ack_floor == 4);
    let doctor = spillq(&["doctor", "--json", "--data-dir"]).arg(folder.path().join("q")).finished();
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(!told.contains("destination_lost"), "{told}");
    // Also without what the run before knew.
    assert_eq!(service.stop(), 0);
    wait_until(&Vec::new(), || nats.messages());
    let mut service = start(folder.path(), &config);
    fs::write(folder.path().join("c.log"), "five\n").unwrap();
    service.wait("the fifth is there", |status| status.groups[0].ack_floor == 5);
    assert_eq!(service.stop(), 0);
}

/// A host that was cloned, or a backup that was copied without `spillq restore`: whoever starts last goes on, and the other is told.
#[test]
fn of_two_services_with_a_copy_of_one_store_the_first_is_refused_and_nothing_comes_twice() {
    needs!("nats-server");
    let folder = with_password("secret");
    fs::write(folder.path().join("a.log"), "one\ntwo\n").unwrap();
    let nats = Nats::with_stream("", |_| {});
    let config_file = config(folder.path(), &nats.node.url(), "");
    let mut service = start(folder.path(), &config_file);
    service.wait("they are there", |status| status.groups[0].ack_floor == 2);
    assert_eq!(service.stop(), 0);
    let copy = with_password("secret");
    let data_dir = folder.path().join("q");
    run("cp", &["-a", data_dir.to_str().unwrap(), copy.path().to_str().unwrap()]);

    let mut service = start(folder.path(), &config_file);
    fs::write(folder.path().join("b.log"), "three\n").unwrap();
    service.wait("the third is there", |status| status.groups[0].ack_floor == 3);
    let mut second = start(copy.path(), &config(copy.path(), &nats.node.url(), ""));
    fs::write(copy.path().join("x.log"), "three\nfour\n").unwrap();
    second.wait("it goes on behind what is there", |status| status.groups[0].ack_floor == 4);
    fs::write(folder.path().join("c.log"), "four\nfive\n").unwrap();
    wait_for_word(&mut service, "another spillq with a copy of this data dir");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    assert_eq!(nats.messages(), owned(&[(1, "one"), (2, "two"), (3, "three"), (4, "four")]));
    assert_eq!(second.stop(), 0);
    assert_eq!(service.stop(), 0);
    let mut service = start(folder.path(), &config_file);
    service.wait("the other one goes on", |status| status.groups[0].ack_floor == 5);
    let all = [(1, "one"), (2, "two"), (3, "three"), (4, "four"), (5, "five")];
    assert_eq!(service.stop(), 0);
    let made = |folder: &Path| {
        fs::write(folder.join("password"), "secret").unwrap();
        config(folder, &nats.node.url(), "")
    };
    chaos::a_restored_store_is_refused(folder.path(), made, "before it was restored");
    assert_eq!(nats.messages(), owned(&all));
}

/// What a server had in its buffers when spillq was killed. Such a message is of a smaller connection, and may stand behind another
/// line than its sender expected: then what it says of the lines before it is not believed.
#[test]
fn a_late_message_of_an_earlier_run_is_counted_and_claims_only_its_line() {
    needs!("nats-server");
    let folder = with_password("secret");
    let append = |text: &str| append(folder.path(), text);
    append("one\ntwo\n");
    let nats = Nats::with_stream("", |_| {});
    let config = config(folder.path(), &nats.node.url(), "");
    let mut service = start(folder.path(), &config);
    service.wait("they are there", |status| status.groups[0].ack_floor == 2);
    assert_eq!(service.stop(), 0);
    let mut service = start(folder.path(), &config);
    append("three\n");
    service.wait("the third is there", |status| status.groups[0].ack_floor == 3);

    // Of the first run, which had sent it behind what was message 2.
    let late = |seq: u64, line: &str, written: &str| {
        let (seq, line, written) = (seq.to_string(), line.to_owned(), written.to_owned());
        admin(&[nats.node.port.number], async |context| {
            let second = stream(&context).await.get_raw_message(2).await.unwrap().headers;
            let mut headers = async_nats::HeaderMap::new();
            for name in ["Spillq-Owner", "Spillq-Connection"] {
                headers.insert(name, second.get(name).unwrap().as_str());
            }
            headers.insert("Spillq-Seq", seq.as_str());
            headers.insert("Spillq-Written", written.as_str());
            headers.insert("Spillq-Acked", "2");
            context.publish_with_headers("lines.fills", headers, line.into()).await.unwrap().await.unwrap();
        });
    };
    late(4, "four", "1-4");
    append("four\nfive\n");
    service.wait("the fifth is there", |status| status.groups[0].ack_floor == 5);
    late(7, "seven", "1-7");
    append("six\nseven\n");
    service.wait("all are there", |status| status.groups[0].ack_floor == 7);
    let all = [(1, "one"), (2, "two"), (3, "three"), (4, "four"), (5, "five"), (7, "seven"), (6, "six")];
    assert_eq!(nats.messages(), owned(&all));
    assert_eq!(service.stop(), 0);
}

/// Without a limit of age, a subject without messages was emptied by somebody, and with it the note.
#[test]
fn a_subject_that_somebody_has_emptied_is_refused_after_a_restart() {
    needs!("nats-server");
    let folder = with_password("secret");
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let nats = Nats::with_stream("", |_| {});
    let config = config(folder.path(), &nats.node.url(), "");
    let mut service = start(folder.path(), &config);
    service.wait("it is there", |status| status.groups[0].ack_floor == 1);
    assert_eq!(service.stop(), 0);
    admin(&[nats.node.port.number], async |context| {
        stream(&context).await.purge().await.unwrap();
    });
    fs::write(folder.path().join("b.log"), "two\n").unwrap();
    let mut service = start(folder.path(), &config);
    wait_for_word(&mut service, "somebody removed the note");
    nats.delete();
    nats.make(lines_stream(1));
    service.wait("it is there", |status| status.groups[0].ack_floor == 2);
    assert_eq!(nats.messages(), owned(&[(2, "two")]));
    assert_eq!(service.stop(), 0);
    drop(nats.folder);
}
