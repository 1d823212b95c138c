//! What standalone is told, and the defaults that make it need nothing else.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use service_kit::{
    auth::Signer,
    env::{self, Get, Invalid},
};

/// The settings of standalone and of the services inside it, all read.
pub struct Config {
    /// Address of the public port.
    pub listen: SocketAddr,
    /// Address of the admin port.
    pub admin_listen: SocketAddr,
    /// Folder of the data and of generated keys. Made when it is missing, and owned by one process at a time.
    pub data: PathBuf,
    /// `sqlite:<file>`, by default `parlance.db` in the data folder, or `postgres://…`.
    pub database_url: String,
    /// `memory:`, the default, or `amqp://…`.
    pub amqp_url: String,
    /// `memory:`, the default, or `redis://…`.
    pub redis_url: String,
    /// How long stopping may take.
    pub grace: Duration,
    /// Of chat-service. Its signing key is empty when the one in the data folder is meant.
    pub chat: chat_service::Config,
    /// Of the gateway.
    pub gateway: gateway::Config,
    /// Of presence-service.
    pub presence: presence_service::Config,
    /// Of notify-service.
    pub notify: notify_service::Config,
}

impl Config {
    /// Reads the settings. Touches neither a file nor a port.
    ///
    /// # Errors
    /// When a setting cannot be used; the text names it.
    pub fn from_get(get: &impl Get) -> anyhow::Result<Self> {
        let get = &Defaults::of(get)?;
        let database_url = backend(get, "PARLANCE_DATABASE_URL", &["sqlite:", "postgres://", "postgresql://"])?;
        Ok(Self {
            listen: env::address(get, "PARLANCE_LISTEN")?,
            admin_listen: env::address(get, "PARLANCE_ADMIN_LISTEN")?,
            data: get.data.clone(),
            amqp_url: backend(get, "PARLANCE_AMQP_URL", &["memory:", "amqp://", "amqps://"])?,
            redis_url: backend(get, "PARLANCE_REDIS_URL", &["memory:", "redis://", "rediss://"])?,
            grace: env::millis(get, "PARLANCE_SHUTDOWN_GRACE_MS")?,
            chat: chat_service::Config::from_get(get, database_url.clone(), signing_key(get)?)?,
            gateway: gateway::Config::from_get(get)?,
            presence: presence_service::Config::from_get(get)?,
            notify: notify_service::Config::from_get(get)?,
            database_url,
        })
    }
}

/// Settings in which the backends of standalone are the defaults.
struct Defaults<'a, G> {
    given: &'a G,
    data: PathBuf,
}

impl<'a, G: Get> Defaults<'a, G> {
    fn of(given: &'a G) -> Result<Self, Invalid> {
        Ok(Self { given, data: env::value(given, "PARLANCE_DATA")? })
    }
}

impl<G: Get> Get for Defaults<'_, G> {
    fn get(&self, name: &str) -> Option<String> {
        self.given.get(name).or_else(|| match name {
            "PARLANCE_DATABASE_URL" => {
                // In a URL these two would not be part of the path.
                let path = self.data.join("parlance.db").display().to_string();
                Some(format!("sqlite:{}", path.replace('%', "%25").replace('?', "%3F")))
            }
            "PARLANCE_AMQP_URL" | "PARLANCE_REDIS_URL" => Some("memory:".to_owned()),
            "PARLANCE_FILES_URL" => Some(format!("file:{}", self.data.join("files").display())),
            _ => None,
        })
    }
}

/// The URL of a backend. It may carry a password and is not repeated.
fn backend(get: &impl Get, name: &str, schemes: &[&str]) -> Result<String, Invalid> {
    let url: String = env::value(get, name)?;
    match schemes.iter().any(|scheme| url.starts_with(scheme)) {
        true => Ok(url),
        false => Err(Invalid::new(name, format!("must begin with one of {}", schemes.join(" ")))),
    }
}

/// The signing key that was given, or an empty text.
fn signing_key(get: &impl Get) -> Result<String, Invalid> {
    let Some(pem) = get.get("PARLANCE_SIGNING_KEY") else { return Ok(String::new()) };
    Signer::from_pem(&pem).map_err(|error| Invalid::new("PARLANCE_SIGNING_KEY", error))?;
    Ok(pem)
}
