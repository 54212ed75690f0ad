//! A batch as the body of a request, in memory, compressed if configured.

use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;

use prost::Message;
use spillq_storage::SourceId;

use super::super::Batch;
use super::super::input::{Input, Paths, chunks, each_line, write_ndjson, write_terminated};
use super::form::{Coding, Content, Form};
use super::{elasticsearch, loki, otlp};

/// The level of zstd for bodies, as for the blocks of the log: faster than networks.
const ZSTD_LEVEL: i32 = 1;

/// The buffer that joins objects into larger writes.
const BUFFER_BYTES: usize = 64 * 1024;

/// How batches become bodies.
pub(super) struct Encoder {
    pub(super) form: Form,
    pub(super) content: Content,
    pub(super) coding: Coding,
    pub(super) paths: Paths,
    /// The group, the store and its epoch: the ids of lines begin with it.
    pub(super) owner: String,
}

impl Encoder {
    /// The body for a batch, in chunks. Lines that are not compressed are not copied. May take a second for 16 MiB: not for a
    /// thread of the runtime.
    pub(super) fn body(&self, batch: &Batch) -> io::Result<Vec<Bytes>> {
        let whole = match self.coding {
            Coding::Identity => match self.form {
                Form::Lines if self.content == Content::Message => return chunks(batch, &Input::Lines),
                Form::Ndjson => return chunks(batch, &Input::Ndjson(self.paths.clone())),
                _ => self.write(batch, Vec::new())?,
            },
            Coding::Gzip => {
                self.write(batch, GzEncoder::new(Vec::new(), flate2::Compression::fast()))?.finish()?
            }
            Coding::Zstd => self.write(batch, zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?)?.finish()?,
        };
        Ok(vec![whole.into()])
    }

    fn write<W: Write>(&self, batch: &Batch, mut out: W) -> io::Result<W> {
        // Objects are written in small parts, which would make compressors slow.
        let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, &mut out);
        let paths = &self.paths;
        match self.form {
            // The next object must not follow directly.
            Form::Lines if self.content == Content::Json => write_terminated(batch.pieces(), &mut buffered)?,
            Form::Lines => batch.pieces().iter().try_for_each(|piece| buffered.write_all(piece.bytes()))?,
            Form::Ndjson => write_ndjson(batch, paths, &mut buffered)?,
            Form::Json => {
                write_ndjson(batch, paths, Commas { out: &mut buffered, between: b"[" })?;
                buffered.write_all(b"]\n")?;
            }
            Form::Elasticsearch => each_line(batch, paths, |line, origin, appended| {
                let how = (self.content, self.owner.as_str());
                elasticsearch::write(line, (origin, appended), how, &mut buffered)
            })?,
            Form::Loki => {
                let mut streams = loki::Streams::new(&mut buffered);
                each_line(batch, paths, |line, origin, appended| streams.line(line, origin, appended))?;
                streams.end()?;
            }
            Form::Otlp => self.write_otlp(batch, &mut buffered)?,
        }
        buffered.flush()?;
        drop(buffered);
        Ok(out)
    }

    /// Source by source and some lines at a time, so that little is there twice.
    fn write_otlp(&self, batch: &Batch, out: &mut impl Write) -> io::Result<()> {
        let mut open: Option<(SourceId, otlp::Request)> = None;
        each_line(batch, &self.paths, |line, origin, appended| {
            let is_to_add =
                |(id, request): &(SourceId, otlp::Request)| *id == origin.id && !request.is_full();
            if !open.as_ref().is_some_and(is_to_add)
                && let Some((_, done)) = open.replace((origin.id, otlp::Request::of(origin)))
            {
                out.write_all(&done.encode_to_vec())?;
            }
            if let Some((_, request)) = &mut open {
                request.add(line, (origin, appended), self.content);
            }
            Ok(())
        })?;
        open.map_or(Ok(()), |(_, last)| out.write_all(&last.encode_to_vec()))
    }
}

/// Makes an array of objects. The only newline of an object is at its end.
struct Commas<W> {
    out: W,
    /// The bytes before the next object.
    between: &'static [u8],
}

impl<W: Write> Write for Commas<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.out.write_all(std::mem::take(&mut self.between))?;
            self.out.write_all(line.strip_suffix(b"\n").unwrap_or(line))?;
            if line.ends_with(b"\n") {
                self.between = b",";
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::super::super::input::Named;
    use super::super::super::{Piece, sample};
    use super::*;

    fn sample(paths: Paths) -> (Batch, impl Fn(&Batch, Form, Content, Coding) -> Vec<u8>) {
        let block = sample::block(10, &[b"a \"b\"\\n", b"\xff"]);
        let pieces = sample::pieces(&block, &[(10, 10), (11, 11)], Piece::new);
        let batch = Batch::new(Arc::from("g"), 1, pieces).unwrap();
        (batch, move |batch: &Batch, form, content, coding| {
            let encoder = Encoder { form, content, coding, paths: paths.clone(), owner: "1-07-0".to_owned() };
            encoder.body(batch).unwrap().concat()
        })
    }

    fn labelled() -> Paths {
        let labels = Arc::new(BTreeMap::from([("service_name".to_owned(), "a".to_owned())]));
        Arc::new(move |_| Some(Named { path: "/log/a".to_owned(), labels: Arc::clone(&labels) }))
    }

    #[test]
    fn a_line_is_created_in_elasticsearch_under_its_own_id() {
        let (batch, body) = sample(labelled());
        let text = body(&batch, Form::Elasticsearch, Content::Message, Coding::Identity);
        let found: Vec<Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let time = "1970-01-01T00:00:00.000Z";
        let log = |offset: u64| json!({"file": {"path": "/log/a"}, "offset": offset});
        assert_eq!(
            found,
            [
                json!({"create": {"_id": "1-07-0-10"}}),
                json!({"@timestamp": time, "message": "a \"b\"\\n", "log": log(100), "event": {"sequence": 10}, "labels": {"service_name": "a"}}),
                json!({"create": {"_id": "1-07-0-11"}}),
                json!({"@timestamp": time, "message": "\u{fffd}", "log": log(108), "event": {"sequence": 11}, "labels": {"service_name": "a"}, "spillq": {"base64": "/w=="}}),
            ]
        );
        let json = body(&batch, Form::Elasticsearch, Content::Json, Coding::Identity);
        assert_eq!(
            json,
            b"{\"create\":{\"_id\":\"1-07-0-10\"}}\na \"b\"\\n\n{\"create\":{\"_id\":\"1-07-0-11\"}}\n\xff\n"
        );
    }

    #[test]
    fn equal_lines_of_loki_differ_in_their_time() {
        let (batch, body) = sample(labelled());
        let text = body(&batch, Form::Loki, Content::Message, Coding::Identity);
        let values = json!([
            ["10", "a \"b\"\\n", {"filename": "/log/a", "seq": "10", "offset": "100"}],
            ["11", "\u{fffd}", {"filename": "/log/a", "seq": "11", "offset": "108", "base64": "/w=="}],
        ]);
        let found: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(found, json!({"streams": [{"stream": {"service_name": "a"}, "values": values}]}));
        // Loki takes no stream without a label.
        let (batch, body) = sample(Arc::new(|_| None));
        let found: Value =
            serde_json::from_slice(&body(&batch, Form::Loki, Content::Message, Coding::Identity)).unwrap();
        assert_eq!(found["streams"][0]["stream"], json!({"job": "spillq"}));
        assert_eq!(found["streams"][0]["values"][0][2]["filename"], "3");
    }

    /// With field numbers written here once more, as the specification has them.
    #[test]
    fn records_of_otlp_have_their_fields() {
        let (batch, body) = sample(labelled());
        let found = body(&batch, Form::Otlp, Content::Message, Coding::Identity);
        let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
        let fixed = |number: u8, value: u64| [&[number << 3 | 1][..], &value.to_le_bytes()].concat();
        let text = |text: &str| field(1, text.as_bytes());
        let pair = |key: &str, value: Vec<u8>| [text(key), field(2, &value)].concat();
        let int = |value: u8| vec![3 << 3, value];
        let record = |seq: u8, offset: u8, value: Vec<u8>| {
            let attributes = [
                field(6, &pair("log.file.path", text("/log/a"))),
                field(6, &pair("spillq.seq", int(seq))),
                field(6, &pair("spillq.offset", int(offset))),
            ];
            let time = u64::from(seq);
            [fixed(1, time), field(5, &value), attributes.concat(), fixed(11, time)].concat()
        };
        let scope = [text("spillq"), field(2, env!("CARGO_PKG_VERSION").as_bytes())].concat();
        let records =
            [field(2, &record(10, 100, text("a \"b\"\\n"))), field(2, &record(11, 108, field(7, b"\xff")))];
        let scopes = [field(1, &scope), records.concat()].concat();
        let resource = field(1, &pair("service.name", text("a")));
        // Its length takes two bytes.
        let long = |number: u8, content: &[u8]| {
            let length = content.len();
            [&[number << 3 | 2, (length & 0x7f | 0x80) as u8, (length >> 7) as u8], content].concat()
        };
        let expected = long(1, &[field(1, &resource), long(2, &scopes)].concat());
        assert_eq!(found, expected);
    }

    /// The last line of a file that has ended has no newline, and the next file's line must not become a part of it.
    #[test]
    fn an_object_without_a_newline_does_not_join_the_next_one() {
        let mut builder = spillq_storage::BlockBuilder::new();
        builder.push_marked(SourceId(3), 0, b"{\"a\":1}", spillq_storage::LineFlags::WHOLE.unterminated());
        let block = Arc::new(builder.build(0).numbered(1, spillq_storage::Seq(1)));
        let mut pieces = sample::pieces(&block, &[(1, 1)], Piece::new);
        pieces.extend(sample::pieces(&sample::block(2, &[b"{\"b\":2}"]), &[(2, 2)], Piece::new));
        let batch = Batch::new(Arc::from("g"), 1, pieces).unwrap();
        let (_, body) = sample(Arc::new(|_| None));
        for coding in [Coding::Identity, Coding::Gzip] {
            let found = body(&batch, Form::Lines, Content::Json, coding);
            let found = match coding {
                Coding::Gzip => {
                    let mut back = Vec::new();
                    flate2::read::GzDecoder::new(&found[..]).read_to_end(&mut back).unwrap();
                    back
                }
                _ => found,
            };
            assert_eq!(found, b"{\"a\":1}\n{\"b\":2}\n");
        }
    }

    #[test]
    fn every_form_and_coding_holds_the_lines() {
        let (batch, body) = sample(Arc::new(|_| None));
        let body = |batch: &Batch, form, coding| body(batch, form, Content::Message, coding);
        assert_eq!(body(&batch, Form::Lines, Coding::Identity), &b"a \"b\"\\n\n\xff\n"[..]);
        let json = body(&batch, Form::Json, Coding::Identity);
        let array: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (array.len(), &array[0]["text"], &array[1]["base64"]),
            (2, &"a \"b\"\\n".into(), &"/w==".into())
        );
        let plain = body(&batch, Form::Ndjson, Coding::Identity);
        assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 2);
        let zstd = body(&batch, Form::Ndjson, Coding::Zstd);
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), plain);
        let gzip = body(&batch, Form::Ndjson, Coding::Gzip);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, plain);
    }
}
