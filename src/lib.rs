//! The spillq service: follows files, appends their lines to a durable log, and delivers them to processors.

pub mod cgroup;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod consumers;
pub mod file_limit;
mod globs;
pub mod http;
pub mod messages;
pub mod metrics;
pub mod plain;
pub mod processor;
pub mod queue;
pub mod secret;
pub mod service;
pub mod supervise;
pub mod tail;
pub mod unreadable;
