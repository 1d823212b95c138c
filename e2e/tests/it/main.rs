//! The stories of Parlance, each told on every kind of stack.
//!
//! `standalone::` runs in this process. `cluster::` needs `PARLANCE_TEST_CLUSTER`, the line that `cargo xtask cluster` prints;
//! `url::` needs `PARLANCE_TEST_URL`; `faults::` needs `PARLANCE_TEST_XTASK` and starts clusters of its own. What is not given is
//! skipped with a notice, or fails with `PARLANCE_TEST_REQUIRED=1`.
#![allow(clippy::unwrap_used, reason = "a story fails by panicking")]

/// Stamps a test of each story for each kind of stack and each format of the frames.
macro_rules! stories {
    ($($name:ident),+ $(,)?) => {
        mod standalone {
            $(mod $name {
                crate::in_each_format!(|format| {
                    let stack = e2e::Stack::standalone().speaking(format);
                    e2e::tell(Box::pin(super::super::$name(&stack)));
                });
            })+
        }

        mod cluster {
            $(mod $name {
                crate::in_each_format!(|format| {
                    if let Some(stack) = e2e::Stack::cluster() {
                        e2e::tell(Box::pin(super::super::$name(&stack.speaking(format))));
                    }
                });
            })+
        }

        mod url {
            $(mod $name {
                crate::in_each_format!(|format| {
                    if let Some(stack) = e2e::Stack::url() {
                        e2e::tell(Box::pin(super::super::$name(&stack.speaking(format))));
                    }
                });
            })+
        }
    };
}

/// Stamps a test of each story on a standalone of its own, with these settings.
macro_rules! own_standalone_stories {
    ($settings:expr; $($name:ident),+ $(,)?) => {
        mod own_standalone {
            $(mod $name {
                crate::in_each_format!(|format| {
                    let own = e2e::OwnStandalone::start(&$settings);
                    e2e::tell(Box::pin(super::super::$name(&own.stack().speaking(format))));
                });
            })+
        }
    };
}

/// Stamps two tests: each tells a story in one format.
macro_rules! in_each_format {
    (|$format:ident| $story:block) => {
        #[test]
        fn json() {
            let $format = parlance_client::Format::Json;
            $story
        }

        #[test]
        fn proto() {
            let $format = parlance_client::Format::Proto;
            $story
        }
    };
}
pub(crate) use in_each_format;

/// Stamps a test of each story on a cluster of its own, which the story may break, with these settings. Told once, as it takes
/// long: its connections speak the formats in turn.
macro_rules! fault_stories {
    ($settings:expr; $($name:ident),+ $(,)?) => {
        $(mod $name {
            #[test]
            fn own_cluster() {
                let _turn = crate::faults::turn();
                if let Some(cluster) = e2e::OwnCluster::start(&$settings) {
                    e2e::tell(Box::pin(super::$name(&cluster)));
                }
            }
        })+
    };
}

mod accounts;
mod attachments;
mod bad_frames;
mod bad_tokens;
mod blocks;
mod changes;
mod chat;
mod cursors;
mod edits;
mod faults;
mod files;
mod hello;
mod history;
mod history_joined;
mod limits;
mod members;
mod mentions;
mod not_built;
mod notifications;
mod object_stores;
mod presence;
mod privacy;
mod push;
mod removal;
mod resume;
mod room_rules;
mod rooms;
mod scans;
mod sending;
mod session;
mod sessions;
mod token_life;
mod typing;
mod uploads;

/// Asserts that a call fails with this code of the contract.
#[track_caller]
fn is_refused<T: std::fmt::Debug>(outcome: Result<T, parlance_client::Error>, code: parlance_client::Code) {
    match outcome {
        Err(error) => assert_eq!(error.code(), Some(code), "{error}"),
        Ok(answer) => panic!("this had to be refused with {code:?}: {answer:?}"),
    }
}
