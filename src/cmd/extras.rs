//! `top`, `demo` and `bench`: what the feature `cli-extras` adds. Without it they are refused by name.

#[cfg(feature = "cli-extras")]
pub use super::{bench::run as bench, demo::run as demo, top::run as top};

#[cfg(not(feature = "cli-extras"))]
pub use left_out::{bench, demo, top};

#[cfg(not(feature = "cli-extras"))]
mod left_out {
    use crate::cli::{BenchArgs, DemoArgs, TopArgs};
    use crate::cmd::{Exit, Failure};

    fn left_out(name: &str) -> Result<Exit, Failure> {
        Err(Failure::could_not_run(format!("this spillq was built without `{name}`"))
            .hint("build it with the feature cli-extras; `spillq status --watch` and `spillq doctor` are always there"))
    }

    /// # Errors
    /// Always.
    pub fn bench(_: &BenchArgs) -> Result<Exit, Failure> {
        left_out("bench")
    }

    /// # Errors
    /// Always.
    pub fn demo(_: &DemoArgs) -> Result<Exit, Failure> {
        left_out("demo")
    }

    /// # Errors
    /// Always.
    pub fn top(_: &TopArgs) -> Result<Exit, Failure> {
        left_out("top")
    }
}
