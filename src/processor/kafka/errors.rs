//! What an error of Kafka means.

use krafka::error::{ErrorCode, KrafkaError};

use crate::processor::trouble::{Fault, Trouble};

/// Why something did not work. `what` was attempted.
pub(super) fn trouble(what: &str, error: &KrafkaError) -> Trouble {
    Trouble::new(fault(error), format!("{what}: {error}"))
}

/// Whom to blame. What can be both an outage and a wrong setup counts as an outage: the next connection asks the metadata.
fn fault(error: &KrafkaError) -> Fault {
    match error {
        KrafkaError::Auth { .. } | KrafkaError::Config { .. } => Fault::Setup,
        KrafkaError::Broker { code, .. } => match code {
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::TransactionalIdAuthorizationFailed
            | ErrorCode::SaslAuthenticationFailed
            | ErrorCode::UnsupportedSaslMechanism
            | ErrorCode::InvalidTopic
            | ErrorCode::InvalidTransactionTimeout
            | ErrorCode::UnsupportedVersion
            | ErrorCode::PolicyViolation => Fault::Setup,
            ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => Fault::Size,
            _ => Fault::Server,
        },
        // No connection, no answer, a fenced producer, a transaction that has to be aborted: a new connection finds out why.
        _ => Fault::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_pass_is_a_wrong_setup() {
        let broker = |code| KrafkaError::broker(code, "no\u{1b}");
        for (error, expected) in [
            (KrafkaError::auth("wrong password"), Fault::Setup),
            (KrafkaError::config("no such host"), Fault::Setup),
            (broker(ErrorCode::TopicAuthorizationFailed), Fault::Setup),
            (broker(ErrorCode::TransactionalIdAuthorizationFailed), Fault::Setup),
            (broker(ErrorCode::MessageTooLarge), Fault::Size),
            (broker(ErrorCode::NotEnoughReplicas), Fault::Server),
            (broker(ErrorCode::UnknownTopicOrPartition), Fault::Server),
            (broker(ErrorCode::CoordinatorNotAvailable), Fault::Server),
            (broker(ErrorCode::ConcurrentTransactions), Fault::Server),
            (KrafkaError::fenced("another"), Fault::Server),
            (KrafkaError::transaction_abortable("a record failed"), Fault::Server),
            (KrafkaError::timeout("metadata"), Fault::Server),
            (KrafkaError::delivery_timeout(true, "late"), Fault::Server),
            (KrafkaError::illegal_state("x"), Fault::Server),
        ] {
            let trouble = trouble("storing", &error);
            assert_eq!(trouble.fault, expected, "{error}");
            assert!(trouble.why.starts_with("storing: ") && !trouble.why.contains('\u{1b}'));
        }
    }
}
