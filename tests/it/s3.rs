//! Lines into objects of real S3 servers: each once. SeaweedFS, which keeps its data, is killed; moto is there for all else.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusty_s3::actions::{ListObjectsV2, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};

use crate::chaos::{self, append, every_line_once, owned, start, wait_for_word, wait_until};
use crate::receiver::{Receiver, example};
use crate::support::{Bounded, Service, needs, program, run, spillq, wait_for, watch, write_config};

const VALID: Duration = Duration::from_secs(600);

/// A server with a bucket.
struct Store {
    server: Receiver,
    bucket: Bucket,
    credentials: Credentials,
}

impl Store {
    fn moto<F>(of: F) -> Option<Store> {
        let server = Receiver::start(of, "moto", "/moto-api/", "the packages of PyPI")?;
        Some(Store::with_bucket(server))
    }

    fn with_bucket(server: Receiver) -> Store {
        let url = server.url("").parse().unwrap();
        let bucket = Bucket::new(url, UrlStyle::Path, "logs", "us-east-1").unwrap();
        let store = Store { server, bucket, credentials: Credentials::new("test", "testtest") };
        let made = || {
            store.curl(&store.bucket.create_bucket(&store.credentials), &["-X", "PUT", "--data-binary", ""])
        };
        assert!(wait_for(made).is_some(), "a bucket is made");
        store
    }

    /// What is answered; `None` if that is an error.
    fn curl<'a>(&self, action: &impl S3Action<'a>, args: &[&str]) -> Option<Vec<u8>> {
        let mut curl = program("curl");
        curl.args(["-sS", "--fail", "--max-time", "30"]).args(args).arg(action.sign(VALID).as_str());
        let output = curl.finished();
        output.status.success().then_some(output.stdout)
    }

    /// All keys, in order. Of one page: tests make no more.
    fn keys(&self) -> Vec<String> {
        let action = self.bucket.list_objects_v2(Some(&self.credentials));
        let text = wait_for(|| self.curl(&action, &[])).expect("a list");
        let list = ListObjectsV2::parse_response(std::str::from_utf8(&text).unwrap()).unwrap();
        assert!(list.next_continuation_token.is_none());
        list.contents
            .into_iter()
            .map(|object| object.key)
            .filter(|key| !key.ends_with("/.conditional"))
            .collect()
    }

    /// The lines of all objects, one after the other, each with the seq that it has by the key.
    fn lines(&self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        for key in self.keys() {
            let action = self.bucket.get_object(Some(&self.credentials), &key);
            let body = wait_for(|| self.curl(&action, &[])).expect("an object");
            let text = String::from_utf8(zstd::decode_all(&body[..]).unwrap()).unwrap();
            let name = key.rsplit('/').next().unwrap();
            let first: u64 = name.strip_suffix(".log.zst").unwrap().parse().unwrap();
            lines.extend((first..).zip(text.lines().map(str::to_owned)));
        }
        lines
    }

    fn remove(&self, key: &str) {
        self.curl(&self.bucket.delete_object(Some(&self.credentials), key), &["-X", "DELETE"]).unwrap();
    }

    fn config(&self, folder: &Path, more: &str) -> PathBuf {
        fs::write(folder.join("secret"), "testtest\n").unwrap();
        fs::write(folder.join("id"), "test\n").unwrap();
        let credentials = "access_key_id = \"file:id\"\nsecret_access_key = \"file:secret\"";
        config(folder, &self.server.url("/logs/app"), &format!("{credentials}\n{more}"))
    }
}

fn config(folder: &Path, url: &str, more: &str) -> PathBuf {
    let kind = format!("kind = \"s3\"\nurl = {url:?}\n{more}\n");
    write_config(folder, &[chaos::settings(), &kind].concat())
}

#[test]
fn objects_hold_every_line_once_and_in_order_through_kills() {
    let lacks = "the modules of Go";
    if !program("tests/servers/seaweedfs").arg("has").finished().status.success() {
        return crate::support::need::skip(|| {}, lacks);
    }
    let Some(server) = Receiver::start_with(|| {}, ("seaweedfs", 7), "/status", lacks) else { return };
    let mut store = Store::with_bucket(server);
    let folder = tempfile::tempdir().unwrap();
    let config = store.config(folder.path(), "");
    let (log, data_dir) = (folder.path().join("a.log"), folder.path().join("q"));
    let lines = chaos::through_kills(&log, &data_dir, &config, &mut store.server);
    let found = store.lines();
    every_line_once(found, lines);

    // This server looks at signatures.
    fs::write(folder.path().join("secret"), "wrong").unwrap();
    append(folder.path(), "one more\n");
    let mut service = start(folder.path(), &config);
    wait_for_word(&mut service, "SignatureDoesNotMatch");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    fs::write(folder.path().join("secret"), "testtest").unwrap();
    service.wait("it is there", |status| status.groups[0].ack_floor == lines + 1);
    assert_eq!(service.stop(), 0);
}

#[test]
fn lines_that_come_late_or_again_are_stored_once_and_again_on_request() {
    let Some(store) = Store::moto(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "one\ntwo\nthree\nfour\n");
    let config = store.config(folder.path(), "");
    // Nobody listens yet.
    let away = store.server.url("/logs/app").replace(&store.server.port.number.to_string(), "1");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(&store.server.url("/logs/app"), &away)).unwrap();
    let mut service = start(folder.path(), &config);
    wait_for_word(&mut service, "onnect");
    let command = |args: &[&str]| chaos::command(folder.path(), args);
    command(&["dead-letter", "park", "2"]);
    assert_eq!(service.stop(), 0);
    let config = store.config(folder.path(), "");
    let mut service = start(folder.path(), &config);
    service.wait("the others are there", |status| status.groups[0].ack_floor == 4);
    assert_eq!(store.lines(), owned(&[(1, "one"), (3, "three"), (4, "four")]));
    command(&["dead-letter", "retry", "2"]);
    let all = owned(&[(1, "one"), (2, "two"), (3, "three"), (4, "four")]);
    wait_until(&all, || store.lines());

    // All of them again, in batches that are cut differently: none is added.
    command(&["group", "seek", "default", "--to", "beginning", "--missing"]);
    append(folder.path(), "five\n");
    let all_done = |service: &mut Service| {
        service.wait("all are done", |status| {
            status.groups[0].ack_floor == 5 && status.groups[0].lag_lines == 0
        });
    };
    all_done(&mut service);
    let all = owned(&[(1, "one"), (2, "two"), (3, "three"), (4, "four"), (5, "five")]);
    assert_eq!(store.lines(), all);
    // Objects are not changed: they have to be removed before.
    let seek = |to: &str| {
        let mut seek = spillq(&["group", "seek", "default", "--again", "--to", to, "--data-dir"]);
        seek.arg(folder.path().join("q")).finished()
    };
    let refused = seek("4");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("have lines from 4 on; remove them"), "{said}");
    let keys = store.keys();
    store.remove(keys.last().unwrap());
    store.remove(&keys[keys.len() - 2]);
    assert_eq!(store.lines(), owned(&[(1, "one"), (2, "two")]));
    let refused = seek("2");
    assert!(!refused.status.success());
    let done = seek("3");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    all_done(&mut service);
    assert_eq!(store.lines(), all);
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_prefix_belongs_to_one_store_and_of_two_copies_the_first_is_refused() {
    let Some(store) = Store::moto(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "one\ntwo\n");
    let config_file = store.config(folder.path(), "");
    let mut service = start(folder.path(), &config_file);
    service.wait("they are there", |status| status.groups[0].ack_floor == 2);
    assert_eq!(service.stop(), 0);
    let copy = tempfile::tempdir().unwrap();
    run("cp", &["-a", folder.path().join("q").to_str().unwrap(), copy.path().to_str().unwrap()]);

    let mut service = start(folder.path(), &config_file);
    append(folder.path(), "three\n");
    service.wait("the third is there", |status| status.groups[0].ack_floor == 3);
    let mut second = start(copy.path(), &store.config(copy.path(), ""));
    fs::write(copy.path().join("x.log"), "three\nfour\n").unwrap();
    second.wait("it continues behind what is there", |status| status.groups[0].ack_floor == 4);
    append(folder.path(), "four\nfive\n");
    wait_for_word(&mut service, "another spillq with a copy of this data dir");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    assert_eq!(store.lines(), owned(&[(1, "one"), (2, "two"), (3, "three"), (4, "four")]));
    assert_eq!(second.stop(), 0);
    assert_eq!(service.stop(), 0);

    let other = tempfile::tempdir().unwrap();
    append(other.path(), "uno\n");
    let mut strange = start(other.path(), &store.config(other.path(), ""));
    wait_for_word(&mut strange, "belongs to another store");
    assert_eq!(strange.stop(), 0);
    chaos::a_restored_store_is_refused(
        folder.path(),
        |folder| store.config(folder, ""),
        "before it was restored",
    );
    assert_eq!(store.lines().len(), 4, "nothing was added");
}

/// Lines of other sources stand before the first line of a batch, in one attempt and not in the next; many seqs lie between two objects;
/// and the suffix changes.
#[test]
fn objects_are_found_whatever_lies_around_their_lines() {
    let Some(store) = Store::moto(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    let own = store.config(folder.path(), "");
    let text = fs::read_to_string(&own).unwrap();
    let text = text.replace("name = \"default\"", "name = \"default\"\ninclude = [\"**/own.log\"]");
    fs::write(&own, &text).unwrap();
    let write = |name: &str, lines: &str| {
        let mut file = File::options().create(true).append(true).open(folder.path().join(name)).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    };
    let mut service = start(folder.path(), &own);
    let mut end = 0;
    let mut settled = |service: &mut Service, lines: u64| {
        end += lines;
        service.wait("all is settled", |status| {
            status.log.next_seq == end + 1 && status.groups[0].lag_lines == 0
        });
    };
    write("other.log", "x\nx\n");
    settled(&mut service, 2);
    write("own.log", "one\ntwo\n");
    settled(&mut service, 2);
    write("other.log", &"x\n".repeat(20_000));
    settled(&mut service, 20_000);
    write("own.log", "three\n");
    settled(&mut service, 1);
    let own_lines = owned(&[(3, "one"), (4, "two"), (20_005, "three")]);
    assert_eq!(store.lines(), own_lines);
    assert_eq!(service.stop(), 0);

    // All of them again, with another suffix for what is new.
    fs::write(&own, text.replace("kind = \"s3\"", "kind = \"s3\"\nsuffix = \".ndjson.zst\"")).unwrap();
    let mut service = start(folder.path(), &own);
    service.wait("it runs", |_| true);
    chaos::command(folder.path(), &["group", "seek", "default", "--to", "beginning", "--missing"]);
    write("own.log", "four\n");
    settled(&mut service, 1);
    let keys = store.keys();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert!(keys[2].ends_with("/00000000000000020006.ndjson.zst"), "{keys:?}");
    assert_eq!(service.stop(), 0);
}

/// A request of an earlier run that a slow server carries out after this run has looked.
#[test]
fn an_object_of_an_earlier_run_that_arrives_late_is_counted() {
    let Some(store) = Store::moto(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "one\n");
    let config = store.config(folder.path(), "");
    let mut service = start(folder.path(), &config);
    service.wait("it is there", |status| status.groups[0].ack_floor == 1);
    assert_eq!(service.stop(), 0);
    let mut service = start(folder.path(), &config);
    append(folder.path(), "two\n");
    service.wait("it is there", |status| status.groups[0].ack_floor == 2);

    let first = store.keys().remove(0);
    let (owner, key) = (first.split('/').nth(1).unwrap(), first.replace("0001.log", "0003.log"));
    let late = folder.path().join("late");
    fs::write(&late, zstd::encode_all(&b"three\nfour\n"[..], 3).unwrap()).unwrap();
    let about = [("last-seq", "4"), ("owner", owner), ("run", "1-earlier")];
    let mut action = store.bucket.put_object(Some(&store.credentials), &key);
    let mut args = vec!["-T".to_owned(), late.to_str().unwrap().to_owned()];
    for (name, value) in about {
        action.headers_mut().insert(format!("x-amz-meta-spillq-{name}"), value);
        args.extend(["-H".to_owned(), format!("x-amz-meta-spillq-{name}: {value}")]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    store.curl(&action, &args).unwrap();
    append(folder.path(), "three\nfour\nfive\n");
    service.wait("all are there", |status| status.groups[0].ack_floor == 5);
    let all = [(1, "one"), (2, "two"), (3, "three"), (4, "four"), (5, "five")];
    assert_eq!(store.lines(), owned(&all));
    assert_eq!(service.stop(), 0);
}

const EMPTY_LIST: &str =
    "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></ListBucketResult>";

/// Answers requests for objects as a server that ignores conditions, and those for metadata with the role of a machine, whose
/// credentials are `document`.
fn careless(document: &'static str) -> String {
    watch::this_test();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let asked = String::from_utf8(head).unwrap();
            let body = match asked.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" => "token",
                "/latest/meta-data/iam/security-credentials/" => "role",
                "/latest/meta-data/iam/security-credentials/role" => document,
                _ if asked.starts_with("GET ") => EMPTY_LIST,
                _ => "",
            };
            // S3 wants to know the length of what is put, also of nothing.
            let has_length = !asked.starts_with("PUT /logs") || asked.contains("content-length: ");
            let status = if has_length { "200 OK" } else { "411 Length Required" };
            let answer = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            // The client may be gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn a_wrong_setup_is_reported_and_nothing_is_stored() {
    let Some(store) = Store::moto(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "one\n");
    let good = store.config(folder.path(), "");
    let text = fs::read_to_string(&good).unwrap();
    let with_url = |url: &str| {
        let changed = text.replace(&store.server.url("/logs/app"), url);
        let file = folder.path().join("other.toml");
        fs::write(&file, changed).unwrap();
        file
    };
    for (url, why) in [
        (store.server.url("/nothing/app"), "NoSuchBucket"),
        (careless("") + "/logs/app", "in spite of If-None-Match"),
    ] {
        let mut service = start(folder.path(), &with_url(&url));
        wait_for_word(&mut service, why);
        service.wait("it is refused", |status| status.groups[0].state == "refused");
        assert_eq!(service.stop(), 0);
    }
    assert_eq!(store.keys(), Vec::<String>::new());
    let mut service = start(folder.path(), &good);
    service.wait("it is there", |status| status.groups[0].ack_floor == 1);
    assert_eq!(service.stop(), 0);
}

#[test]
fn the_example_archives_every_line() {
    let Some(store) = Store::moto(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("access_key_id"), "test").unwrap();
    fs::write(folder.path().join("secret_access_key"), "testtest").unwrap();
    let lines: String = (0..20_000).map(|n| chaos::line(n) + "\n").collect();
    append(folder.path(), &lines);
    let file = example(folder.path(), "s3.toml", &store.server.url("/logs/app"));
    let mut service = start(folder.path(), &file);
    service.wait("all is there", |status| status.groups[0].ack_floor == 20_000);
    assert_eq!(store.lines(), (0..20_000).map(|n| (n + 1, chaos::line(n))).collect::<Vec<_>>());
    assert_eq!(service.stop(), 0);
}

/// On a machine of AWS. The server takes any credentials; the metadata are those that the machine would give.
#[test]
fn without_a_key_the_machine_is_asked() {
    needs!("curl");
    let Some(store) = Store::moto(|| {}) else { return };
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), "one\n");
    let config = config(folder.path(), &store.server.url("/logs/app"), "");
    let document =
        r#"{"AccessKeyId":"AK","SecretAccessKey":"hunter2","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
    let start = |metadata: &str| {
        let before = format!("export AWS_EC2_METADATA_SERVICE_ENDPOINT={metadata}");
        Service::start_with(&folder.path().join("q"), &before, &["--config", config.to_str().unwrap()])
    };
    let mut service = start("http://127.0.0.1:1");
    wait_for_word(&mut service, "access_key_id and secret_access_key are not set");
    assert_eq!(service.stop(), 0);
    let mut service = start(&careless(document));
    service.wait("it is there", |status| status.groups[0].ack_floor == 1);
    assert_eq!(store.lines(), owned(&[(1, "one")]));
    assert_eq!(service.stop(), 0);
}
