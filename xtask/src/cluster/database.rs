//! A fresh database for each cluster, on whatever PostgreSQL it was given.

use anyhow::Context;

use crate::services::client;
use crate::{entropy, log};

pub(super) struct Database {
    server: String,
    name: String,
}

impl Database {
    pub(super) async fn create(server: &str) -> anyhow::Result<Self> {
        let name = format!("parlance_{}", entropy::name()?);
        client(server, &format!("create database {name}")).await.context("cannot create the database")?;
        Ok(Self { server: server.to_owned(), name })
    }

    pub(super) fn url(&self) -> String {
        on_database(&self.server, &self.name)
    }

    /// Clean-up on a server that is not ours: a failure is worth a line and no more.
    pub(super) async fn drop(self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        if let Err(error) = client(&self.server, &statement).await {
            log::progress(format_args!("cannot drop the database: {error:#}"));
        }
    }
}

/// The same server and options, another database.
fn on_database(url: &str, name: &str) -> String {
    let (address, options) = match url.split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (url, String::new()),
    };
    let host_at = address.find("://").map_or(0, |at| at + 3);
    let host_end = address[host_at..].find('/').map_or(address.len(), |at| host_at + at);
    format!("{}/{name}{options}", &address[..host_end])
}

#[cfg(test)]
mod tests {
    use super::on_database;

    #[test]
    fn only_the_database_changes() {
        assert_eq!(on_database("postgres://u:p@h:5/postgres", "x"), "postgres://u:p@h:5/x");
        assert_eq!(on_database("postgres://h", "x"), "postgres://h/x");
        assert_eq!(on_database("postgres://h/", "x"), "postgres://h/x");
        assert_eq!(on_database("postgres://h/a?sslmode=disable", "x"), "postgres://h/x?sslmode=disable");
        assert_eq!(on_database("postgres://h?sslmode=disable", "x"), "postgres://h/x?sslmode=disable");
    }
}
