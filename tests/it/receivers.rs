//! Lines posted to real receivers of logs: OpenSearch, each once by its id, whether spillq or the server is killed; and VictoriaLogs,
//! in all three formats that it takes. `tests/servers` has the servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::chaos::{self, start};
use crate::receiver::{Receiver, example};
use crate::support::{Bounded, spillq, wait_for, write_config};

/// Answers of a search at once.
const PAGE: usize = 5_000;

/// OpenSearch, with an index `lines`.
fn opensearch<F>(of: F, index: &Value) -> Option<Receiver> {
    let ready = "/_cluster/health?wait_for_status=yellow&timeout=5s";
    let server = Receiver::start(of, "opensearch", ready, "the packages of Maven")?;
    server.json("PUT", "/lines", index);
    Some(server)
}

/// The id and the source of every document of `lines`, by id.
fn documents(server: &Receiver) -> BTreeMap<u64, Value> {
    server.json("POST", "/lines/_refresh", &json!({}));
    let mut found = BTreeMap::new();
    let mut after = json!(null);
    loop {
        let mut query = json!({"size": PAGE, "sort": [{"_id": "asc"}]});
        if !after.is_null() {
            query["search_after"] = after;
        }
        let hits = server.json("POST", "/lines/_search", &query)["hits"]["hits"].take();
        let Some(last) = hits.as_array().unwrap().last() else { return found };
        after = last["sort"].clone();
        for hit in hits.as_array().unwrap() {
            let seq = hit["_id"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
            assert!(found.insert(seq, hit["_source"].clone()).is_none(), "line {seq} is there twice");
        }
    }
}

fn config(folder: &Path, url: &str, more: &str) -> PathBuf {
    let kind = format!("kind = \"http\"\nurl = {url:?}\n{more}\n");
    write_config(folder, &[chaos::settings(), &kind].concat())
}

#[test]
fn an_index_holds_every_line_once_through_kills() {
    let index = json!({"settings": {"number_of_replicas": 0}});
    let Some(mut server) = opensearch(|| {}, &index) else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("/lines/_bulk?filter_path=errors,items.*.status,items.*.error");
    let config = config(folder.path(), &url, "format = \"elasticsearch\"\ncompression = \"gzip\"");
    // A Java program takes seconds to start.
    let kills = 3;
    let lines = chaos::through_kills_of(
        &folder.path().join("a.log"),
        &folder.path().join("q"),
        &config,
        (&mut server, kills),
    );
    let found = documents(&server);
    assert_eq!(found.len() as u64, lines);
    for ((seq, document), n) in found.iter().zip(0..) {
        assert_eq!((*seq, &document["message"]), (n + 1, &json!(chaos::line(n))));
        assert_eq!(document["event"]["sequence"], json!(seq));
        assert!(document["log"]["file"]["path"].as_str().unwrap().ends_with("/a.log"), "{document}");
    }
}

#[test]
fn a_line_that_an_index_refuses_is_a_dead_letter_and_the_others_are_stored() {
    let index =
        json!({"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"n": {"type": "long"}}}});
    let Some(server) = opensearch(|| {}, &index) else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "{\"n\":1}\n{\"n\":\"x\"}\nno json\n{\"n\":4}\n").unwrap();
    let url = server.url("/lines/_bulk");
    let config = config(folder.path(), &url, "format = \"elasticsearch\"\nbody = \"json\"");
    let mut service = start(folder.path(), &config);
    let status = service.wait("all is settled", |status| status.groups[0].ack_floor == 4);
    assert_eq!(status.groups[0].dead_letters, 2);
    let seqs = |found: &BTreeMap<u64, Value>| found.keys().copied().collect::<Vec<_>>();
    let found = documents(&server);
    assert_eq!((seqs(&found), &found[&4]), (vec![1, 4], &json!({"n": 4})));
    let listed = spillq(&["dead-letter", "list", "--data-dir"]).arg(folder.path().join("q")).finished();
    let reasons = String::from_utf8(listed.stdout).unwrap();
    assert!(reasons.contains("failed to parse field [n] of type [long]"), "{reasons}");
    assert!(reasons.contains("line 3 is not a JSON object: it does not begin with {"), "{reasons}");

    // An index that takes nothing is not the fault of a line.
    server.json("PUT", "/lines/_settings", &json!({"index.blocks.write": true}));
    fs::write(folder.path().join("b.log"), "{\"n\":5}\n").unwrap();
    service.wait("it is refused", |status| {
        let group = &status.groups[0];
        group.state == "refused" && format!("{:?}", group.last_failure).contains("cluster_block_exception")
    });
    server.json("PUT", "/lines/_settings", &json!({"index.blocks.write": false}));
    service.wait("the fifth is there", |status| status.groups[0].ack_floor == 5);
    assert_eq!(seqs(&documents(&server)), [1, 4, 5]);
    assert_eq!(service.stop(), 0);

    // The example, as it is but for what is not on this machine.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n").unwrap();
    let path = "/example/_bulk?filter_path=errors,items.*.status,items.*.error";
    let mut service = start(folder.path(), &example(folder.path(), "elasticsearch.toml", &server.url(path)));
    service.wait("all is there", |status| status.groups[0].ack_floor == 2);
    server.json("POST", "/example/_refresh", &json!({}));
    let found = server.json("GET", "/example/_search?q=labels.service:app", &json!({}));
    assert_eq!(found["hits"]["total"]["value"], json!(2), "{found}");
    assert_eq!(service.stop(), 0);
}

/// All lines that VictoriaLogs has, as objects.
fn logs(server: &Receiver, query: &str) -> Vec<Value> {
    let path = format!("/select/logsql/query?limit=100000&query={query}");
    let text = server.ask("GET", &path, "").unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn victoria_logs_gets_every_line_in_each_format() {
    let Some(server) = Receiver::start(|| {}, "victoria-logs", "/health", "the modules of Go") else {
        return;
    };
    let lines = 500;
    let es = "_msg_field=message&_time_field=@timestamp&_stream_fields=labels.of";
    for (format, path, more) in [
        ("elasticsearch", format!("/insert/elasticsearch/_bulk?{es}"), "compression = \"gzip\""),
        ("loki", "/insert/loki/api/v1/push?disable_message_parsing=1".to_owned(), "compression = \"gzip\""),
        ("otlp", "/insert/opentelemetry/v1/logs".to_owned(), ""),
        (
            "lines",
            "/insert/jsonline?_msg_field=text&_stream_fields=of".to_owned(),
            "body = \"json\"\nheaders = [\"VL-Extra-Fields: of=lines\"]",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let all: String = (0..lines).map(|n| format!("{{\"n\":{n},\"text\":\"line {n}\"}}\n")).collect();
        fs::write(folder.path().join("a.log"), all).unwrap();
        let kind = format!("kind = \"http\"\nurl = {:?}\nformat = {format:?}\n{more}\n", server.url(&path));
        let labels = format!("include = [\"*.log\"]\nlabels = {{ of = {format:?} }}");
        let text = [chaos::settings(), &kind].concat().replace("include = [\"*.log\"]", &labels);
        let config = write_config(folder.path(), &text);
        let service = start(folder.path(), &config);
        // The second start delivers what was not acked yet.
        service.kill();
        let mut service = start(folder.path(), &config);
        let status = service.wait("all is settled", |status| status.groups[0].ack_floor == lines);
        assert_eq!(status.groups[0].dead_letters, 0, "{format}: {:?}", status.groups[0].last_failure);
        let field = match format {
            "elasticsearch" => "labels.of",
            _ => "of",
        };
        let texts = || -> BTreeSet<String> {
            let all = logs(&server, &format!("{field}:={format}"));
            all.iter().map(|line| line["_msg"].as_str().unwrap().to_owned()).collect()
        };
        let expected: BTreeSet<String> = (0..lines)
            .map(|n| match format {
                "lines" => format!("line {n}"),
                _ => format!("{{\"n\":{n},\"text\":\"line {n}\"}}"),
            })
            .collect();
        // What was just stored is found a little later.
        let found = wait_for(|| Some(texts()).filter(|found| *found == expected));
        assert!(found.is_some(), "{format}: {:?}", logs(&server, "*").first());
        let first = logs(&server, &format!("{field}:={format}")).remove(0);
        let path = match format {
            "elasticsearch" | "otlp" => "log.file.path",
            "loki" => "filename",
            _ => "n",
        };
        assert!(first[path].is_string(), "{format}: {first}");
        assert_eq!(service.stop(), 0);
    }
}

#[test]
fn what_victoria_logs_refuses_is_a_dead_letter_and_the_example_delivers_every_line() {
    let Some(server) = Receiver::start(|| {}, "victoria-logs", "/health", "the modules of Go") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    // It takes no OTLP in this place, and says so by 400.
    let config = config(folder.path(), &server.url("/insert/opentelemetry/v1/nothing"), "format = \"otlp\"");
    let mut service = start(folder.path(), &config);
    let status = service.wait("it is settled", |status| status.groups[0].ack_floor == 1);
    assert_eq!(status.groups[0].dead_letters, 1);
    assert_eq!(logs(&server, "*"), Vec::<Value>::new());
    assert_eq!(service.stop(), 0);

    // The example, as it is but for what is not on this machine.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n").unwrap();
    let url = server.url("/insert/opentelemetry/v1/logs");
    let mut service = start(folder.path(), &example(folder.path(), "victoria-logs.toml", &url));
    service.wait("all is there", |status| status.groups[0].ack_floor == 2);
    let found = wait_for(|| Some(logs(&server, "service.name:=app")).filter(|found| found.len() == 2));
    assert!(found.is_some(), "{:?}", logs(&server, "*"));
    assert_eq!(service.stop(), 0);
}
