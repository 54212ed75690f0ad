//! Entry points for the fuzz targets of what receivers answer. Behind the feature `fuzzing`; not part of the contract.
#![allow(missing_docs)]

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::bad_lines::BadLine;
use super::redis::resp::{Connection, Reply as Redis};
use super::reply::Reply;
use super::stream::{NoAnswer, answer};
use super::{Evidence, Form, Outcome, client, http, sidecar};

/// The answer of a command of `exec-stream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Ok(Option<u64>),
    Nak(Option<u64>, String),
    Bad(u64, Vec<(u64, String)>),
    Later(u128, String),
    Garbage(String),
    Ended,
}

pub async fn exec_answer(mut stdout: impl AsyncRead + Unpin) -> Said {
    match answer(&mut stdout).await {
        Ok(Reply::Ok(seq)) => Said::Ok(seq.map(|seq| seq.0)),
        Ok(Reply::Nak { line, reason }) => Said::Nak(line, reason),
        Ok(Reply::Bad(seq, bad)) => {
            Said::Bad(seq.0, bad.into_iter().map(|bad| (bad.n, bad.reason.unwrap_or_default())).collect())
        }
        Ok(Reply::Later(wait, reason)) => Said::Later(wait.as_millis(), reason),
        Err(NoAnswer::Garbage(what)) => Said::Garbage(what),
        Err(NoAnswer::Ended) => Said::Ended,
    }
}

/// The outcome of a server's reply to a batch of one line that was sent whole, in this form.
pub async fn http_outcome<S>(stream: S, form: Form) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |why: String| Outcome::Failed(Evidence::new(why));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(client::HEAD_BYTES_MAX);
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(error) => return failed(error.to_string()),
    };
    let exchange = async move {
        match sender.send_request(Request::new(Empty::<Bytes>::new())).await {
            Ok(response) => {
                let (_all, mut left) = watch::channel(0);
                let evidence = |summary, tail| Evidence { summary, tail };
                let except = |_: &[BadLine]| Outcome::DoneExcept(Vec::new());
                let asked = http::Asked { form, lines: 1, except: &except };
                http::outcome(response, &mut left, &evidence, &asked).await
            }
            Err(error) => failed(error.to_string()),
        }
    };
    // Errors of the connection reach the exchange.
    tokio::join!(exchange, connection).0
}

/// All replies of a Redis server: whether each is an error, and its bytes; and why there are no more.
pub async fn redis_replies<S>(stream: S) -> (Vec<(bool, Vec<u8>)>, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    let mut connection = Connection::new(Box::new(stream));
    let mut replies = Vec::new();
    loop {
        match connection.reply().await {
            Ok(Redis::Value(bytes)) => replies.push((false, bytes)),
            Ok(Redis::Error(text)) => replies.push((true, text.into_bytes())),
            Err(error) => return (replies, error.to_string()),
        }
    }
}

/// A record of a sidecar, and an intent: decoded and encoded again.
#[must_use]
pub fn sidecar_again(bytes: &[u8]) -> [Option<Vec<u8>>; 2] {
    [
        sidecar::decode_record(bytes).map(|record| sidecar::encode_record(&record)),
        sidecar::decode_intent(bytes).map(sidecar::encode_intent),
    ]
}
