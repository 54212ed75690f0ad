//! Writes the first inputs of each target into `corpus/`, and words into `corpus/*.dict`: `fuzz/run` does it, so that none
//! of them is kept in git. Linked like a target, whose main is that of the fuzzer; it ends before anything is run.
#![no_main]

use std::fs;
use std::io::Write;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use spillq::config::documented;
use spillq_fuzz::store::{append, sample};
use spillq_storage::fuzzing::encode;
use spillq_storage::{Seq, StoreId};

fuzz_target!(init: seeds(), |_data: &[u8]| {});

/// Ends here, before the fuzzer has begun.
fn seeds() {
    std::process::exit(match write() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("seeds: {error}");
            1
        }
    })
}

fn write() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, inputs: &[Vec<u8>]| -> std::io::Result<()> {
        fs::create_dir_all(corpus.join(target))?;
        for (nth, input) in inputs.iter().enumerate() {
            fs::write(corpus.join(target).join(format!("seed-{nth}")), input)?;
        }
        Ok(())
    };
    let block = append(&mut 0, &[b"one\n".to_vec(), b"part".to_vec(), b"two\n".to_vec()]).blocks.remove(0);
    let block = encode(&block, StoreId(7), 3, Seq(10));
    let manifest = sample(0).store.view().map_err(std::io::Error::other)?.snapshot();
    let manifest = manifest.encode().map_err(std::io::Error::other)?;
    let choices = |seed| -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..64).map(|_| rng.u8(..)).collect()
    };
    let random: Vec<_> = (0..64).map(choices).collect();
    write("block", &[[&[0][..], &block].concat(), [&[1, 0][..], &block].concat(), choices(1), choices(2)])?;
    write("record", &[[&[0, 1, 0][..], &manifest[9..]].concat(), [&[1, 1][..], &manifest[9..]].concat()])?;
    for target in ["mark", "scan", "recovery", "repair", "sidecar"] {
        write(target, &random)?;
    }
    write(
        "lines",
        &[[&[8, 1, 0][..], &cut(b"one\ntwo\n\n12345678901234567890\nend")].concat(), vec![95; 300]],
    )?;
    write("checkpoint", &[[&[0; 5][..], b"\x01\x04/log\0\x05\x03\x02\x09\x01\x09\x07\0"].concat()])?;

    let mut packed = Vec::new();
    for text in [&b"a line\nand another\n"[..], b""] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text)?;
        let zstd = zstd::bulk::compress(text, 1)?;
        packed.push([&[0, 0, 0, 4, 0][..], &gzip.finish()?].concat());
        packed.push([&[0, 0, 0, 4, 0][..], &zstd, &zstd].concat());
        packed.push([&[1, 0, 0, 4, 0, 1, 0, 0, 0, 9, 0][..], text].concat());
        packed.push([&[2, 0, 0, 4, 0, 2, 0, 0, 0, 9, 255][..], text].concat());
    }
    write("unpack", &packed)?;

    write("exec_reply", &[&b"OK 12\n"[..], b"OK\r\n", b"NAK 3 why\n", b"NAK down\n", b"OK\nOK\n"].map(cut))?;
    let redis = [&b"+OK\r\n:12\r\n$5\r\na\r\nbc\r\n-NOAUTH who\r\n"[..], b"$0\r\n\r\n", b"*1\r\n:1\r\n"];
    write("redis_reply", &redis.map(cut))?;
    let replies = [
        &b" OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b" Bad\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n3\r\nwhy\r\n0\r\n\r\n",
        b" Later\r\nRetry-After: Sun, 06 Nov 1994 08:49:47 GMT\r\n\r\nuntil it closes",
        b" Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ];
    write("http_reply", &replies.map(|reply| [&[1][..], &cut(reply)].concat()))?;

    let requests = [
        r#"{"add_group":{"name":"g","from_beginning":true}}"#,
        r#"{"remove_group":{"name":"g"}}"#,
        r#"{"pause":{"name":"default","paused":false}}"#,
        r#"{"seek":{"group":"default","to":{"seq":7}}}"#,
        r#"{"seek":{"group":"other","to":"end"}}"#,
        r#"{"park":{"group":"default","seq":3}}"#,
        r#"{"dead_letters":{"group":"default","from":1}}"#,
        r#"{"retry":{"group":"default","seqs":[[1,9]]}}"#,
        r#"{"discard":{"group":"default","seqs":null}}"#,
        r#"{"hold":{"token":null}}"#,
        r#"{"let_go":{"token":1}}"#,
    ];
    let posts = requests.map(|body| [&[1, 1, 1, 0, 6, 3, 3, 0][..], body.as_bytes()].concat());
    write("socket", &posts)?;
    write(
        "socket",
        &[posts.to_vec(), (0..10).map(|path| vec![1, 1, 0, 0, path, 1, 1, 9, 3, 0]).collect()].concat(),
    )?;
    fs::write(corpus.join("socket.dict"), dictionary(&requests.concat()))?;

    // Each section alone with its keys, whether they are commented out or not.
    let documented = documented();
    let plain: Vec<&str> = documented.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    let is_code = |line: &&str| line.starts_with('[') || line.contains(" = ") && !line.ends_with('.');
    let mut sections = vec![Vec::new()];
    for line in plain.into_iter().filter(is_code) {
        if line.starts_with('[') {
            sections.push(vec![0]);
        }
        if let Some(section) = sections.last_mut() {
            section.extend_from_slice(format!("{line}\n").as_bytes());
        }
    }
    let processors = [
        "[[group]]\nname = \"default\"\nin_flight = 2\norder = \"any\"\n",
        "[[processor]]\nkind = \"exec\"\ncommand = [\"cat\"]\n",
        "[[processor]]\nkind = \"file\"\npath = \"out\"\n",
        "[[processor]]\nkind = \"http\"\nurl = \"http://h/x?a=b\"\nformat = \"ndjson\"\nheaders = { A = \"b\" }\n",
        "[[processor]]\nkind = \"redis\"\nurl = \"redis://h:1/2\"\nstream = \"s\"\n",
        "[[processor]]\nkind = \"postgres\"\nurl = \"postgres://u@h/d\"\ntable = \"t\"\n",
        "[http]\nlisten = [\"unix\", \"127.0.0.1:9464\"]\nhosts = [\"h\"]\n",
        "[[follow]]\ninclude = [\"*.log\", \"-\"]\nexclude = [\"x\"]\nfrom = \"end\"\n",
    ];
    sections.extend(processors.map(|text| [&[0][..], text.as_bytes()].concat()));
    write("config", &sections)?;
    fs::write(corpus.join("config.dict"), dictionary(&[documented, processors.concat()].concat()))
}

/// With the choices in front that leave it in one piece.
fn cut(bytes: &[u8]) -> Vec<u8> {
    [vec![255; bytes.len() / 3], bytes.to_vec()].concat()
}

/// Words of a text that are keys or values.
fn dictionary(text: &str) -> String {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')));
    let mut words: Vec<_> = words.filter(|word| (3..=20).contains(&word.len())).collect();
    words.sort_unstable();
    words.dedup();
    words.iter().map(|word| format!("\"{word}\"\n")).collect()
}
