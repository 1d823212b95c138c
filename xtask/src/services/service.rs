//! The three data services and what is particular to each.

use clap::ValueEnum;

use crate::packages::Package;
use crate::process::Signal;
use crate::{environment, probe};

use super::postgres;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Postgres,
    Redis,
    Amqp,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Postgres, Self::Redis, Self::Amqp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Amqp => "amqp",
        }
    }

    /// The variable by which tests find it, and by which a caller replaces it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "PARLANCE_TEST_POSTGRES_URL",
            Self::Redis => "PARLANCE_TEST_REDIS_URL",
            Self::Amqp => "PARLANCE_TEST_AMQP_URL",
        }
    }

    /// The caller's own instance, to be used instead of a private one.
    pub(crate) fn replacement(self) -> Option<String> {
        environment::variable(self.variable())
    }

    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::Postgres => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            Self::Amqp => format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
        }
    }

    pub(crate) fn package(self) -> Package {
        match self {
            Self::Postgres => Package::Postgres,
            Self::Redis => Package::Redis,
            Self::Amqp => Package::RabbitMq,
        }
    }

    /// What makes it end soon and in order.
    pub(super) fn stop_signal(self) -> Signal {
        match self {
            // SIGTERM would wait for every client to leave by itself.
            Self::Postgres => Signal::INT,
            Self::Redis | Self::Amqp => Signal::TERM,
        }
    }

    pub(super) async fn answers(self, port: u16) -> bool {
        match self {
            Self::Postgres => postgres::answers(port).await,
            Self::Redis => probe::redis(port).await,
            Self::Amqp => probe::amqp(port).await,
        }
    }
}
