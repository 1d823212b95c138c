//! Settings: flags over environment over file over default, read once before any port opens.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    fs,
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

/// What a settings name begins with.
pub const PREFIX: &str = "PARLANCE_";
/// Exit code for wrong settings: `EX_USAGE` of sysexits(3).
pub const EXIT_USAGE: u8 = 64;

/// One setting that every service accepts, used or not.
pub struct Known {
    /// The full name in the environment; the flag is the rest in lower case with dashes.
    pub name: &'static str,
    /// The value without one; empty when there is none.
    pub default: &'static str,
    /// One sentence for `--help` and docs/configuration.md.
    pub about: &'static str,
    /// May be given as `<name>_FILE`, and is never printed.
    pub secret: bool,
}

impl Known {
    /// Whether this is its name, or that of a file with it.
    fn is(&self, name: &str) -> bool {
        self.name == name || (self.secret && name.strip_suffix("_FILE").is_some_and(|name| self.name == name))
    }
}

const fn known(name: &'static str, default: &'static str, about: &'static str) -> Known {
    Known { name, default, about, secret: false }
}

const fn secret(name: &'static str, about: &'static str) -> Known {
    Known { name, default: "", about, secret: true }
}

/// Every setting there is. docs/configuration.md lists the same ones, held by a test.
pub const SETTINGS: &[Known] = &[
    known("PARLANCE_LISTEN", "127.0.0.1:8080", "address of the public port (REST and WebSocket)"),
    known("PARLANCE_ADMIN_LISTEN", "127.0.0.1:9090", "address of the admin port (health, metrics)"),
    known("PARLANCE_GRPC_LISTEN", "127.0.0.1:7070", "address on which a service answers the other services"),
    known("PARLANCE_DATA", "./parlance-data", "folder of standalone's own data and generated keys"),
    secret("PARLANCE_DATABASE_URL", "postgres://… or sqlite:<file>; standalone: a file in its data folder"),
    secret("PARLANCE_AMQP_URL", "amqp://… or memory:; standalone: memory:"),
    secret("PARLANCE_REDIS_URL", "redis://… or memory:; standalone: memory:"),
    known("PARLANCE_CHAT_URL", "", "gRPC addresses of all chat-service replicas, separated by commas"),
    known("PARLANCE_PRESENCE_URL", "", "gRPC addresses of the presence-service, separated by commas"),
    known("PARLANCE_NOTIFY_URL", "", "gRPC addresses of the notify-service, separated by commas"),
    secret("PARLANCE_SIGNING_KEY", "Ed25519 private key (PKCS#8 PEM) that signs access tokens"),
    known("PARLANCE_ACCESS_TOKEN_TTL_S", "600", "life of an access token in seconds"),
    known(
        "PARLANCE_ALLOWED_ORIGINS",
        "",
        "browser origins that may open a WebSocket, separated by commas; empty: the server's own",
    ),
    known(
        "PARLANCE_TRUSTED_PROXIES",
        "",
        "addresses of load balancers whose X-Forwarded-For is believed, separated by commas",
    ),
    known("PARLANCE_RATE_LIMITS", "on", "off lifts every rate limit; limits of size and of connections stay"),
    known("PARLANCE_MAX_CONNECTIONS_PER_USER", "10", "sockets of one user at one gateway; the oldest gives way"),
    known("PARLANCE_PRESENCE_GRACE_MS", "15000", "how long after the last sign of life a user is said to be offline"),
    secret(
        "PARLANCE_VAPID_KEY",
        "P-256 private key (PKCS#8 PEM) of Web Push; without one: off, standalone makes its own",
    ),
    known("PARLANCE_VAPID_SUBJECT", "", "mailto: or https: URL by which push services reach the operator"),
    secret("PARLANCE_FCM_CREDENTIALS", "JSON file of a Firebase service account; without one: no FCM"),
    secret("PARLANCE_APNS_KEY", "P-256 private key (the .p8 file) of APNs; without one: no APNs"),
    known("PARLANCE_APNS_KEY_ID", "", "id of that key, 10 characters"),
    known("PARLANCE_APNS_TEAM_ID", "", "id of the team at Apple that it belongs to, 10 characters"),
    secret("PARLANCE_SMTP_URL", "smtp://user:password@host:port?tls=required or smtps://…; without one: no e-mail"),
    known("PARLANCE_EMAIL_FROM", "", "mailbox that e-mail is from: Chat <chat@example.org>"),
    known("PARLANCE_EMAIL_DELAY_MS", "900000", "how long e-mail waits for more messages of the same room"),
    known("PARLANCE_PUSH_DELAY_MS", "3000", "how long a push waits for a read elsewhere"),
    known("PARLANCE_PUSH_RATE", "1000", "pushes in a second to one provider, by each replica; 0: no bound"),
    known("PARLANCE_ALLOW_PRIVATE_TARGETS", "false", "pushes, webhooks and previews may reach private addresses"),
    known("PARLANCE_FILES_URL", "", "object store for files; standalone: a folder in its data folder"),
    known("PARLANCE_FILES_SIGNED_URLS", "false", "sends readers of a file to the object store itself, by a signed URL"),
    known("PARLANCE_FILES_MAX_BYTES", "104857600", "bytes of the largest file"),
    known("PARLANCE_FILES_MAX_PIXELS", "40000000", "pixels of the largest picture"),
    known("PARLANCE_FILES_TYPES", "*/*", "media types that may be uploaded, separated by commas: image/*, text/plain"),
    known("PARLANCE_FILES_USER_QUOTA_BYTES", "10737418240", "bytes that the files of one user may take"),
    known("PARLANCE_FILES_TOTAL_QUOTA_BYTES", "0", "bytes that all files may take; 0: no limit"),
    known("PARLANCE_FILES_UNATTACHED_S", "86400", "how long a file stays that nothing refers to, in seconds"),
    known("PARLANCE_FILES_STRIP_EXIF", "false", "strips EXIF from images on upload"),
    known("PARLANCE_FILES_CLAMD", "", "clamd that has to find each file clean: host:port, or unix:/path; empty: none"),
    known("PARLANCE_LOG_FORMAT", "", "json or text; empty: text on a terminal, else json"),
    known("PARLANCE_SHUTDOWN_GRACE_MS", "20000", "how long a stopping service may take"),
    known("PARLANCE_CONFIG", "", "file of settings in TOML: listen = \"127.0.0.1:8080\""),
];

/// What object stores are reached by, in the names that their own tools use and that clouds set for what runs there: from the
/// environment only, each read when `PARLANCE_FILES_URL` names a store of its kind.
pub const CLOUD: &[Known] = &[
    known("AWS_ACCESS_KEY_ID", "", "S3: id of the access key"),
    secret("AWS_SECRET_ACCESS_KEY", "S3: the access key"),
    secret("AWS_SESSION_TOKEN", "S3: token of a key that is valid for a while"),
    known("AWS_REGION", "", "S3: region of the bucket"),
    known("AWS_DEFAULT_REGION", "", "S3: region of the bucket when AWS_REGION is not set"),
    known("AWS_ENDPOINT_URL", "", "S3: another server than Amazon's: https://minio.example.org"),
    known("AWS_ENDPOINT_URL_S3", "", "S3: the same, before AWS_ENDPOINT_URL"),
    known("AWS_ENDPOINT_URL_STS", "", "S3: server that gives keys for a role"),
    known("AWS_ALLOW_HTTP", "", "S3: the server may be spoken to without TLS"),
    known("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "", "S3: the bucket is in the name of the host instead of in the path"),
    known("AWS_UNSIGNED_PAYLOAD", "", "S3: bodies are not hashed for the signature"),
    known("AWS_DISABLE_BULK_DELETE", "", "S3: objects are removed one by one"),
    known("AWS_SERVER_SIDE_ENCRYPTION", "", "S3: AES256, aws:kms or aws:kms:dsse"),
    known("AWS_SSE_KMS_KEY_ID", "", "S3: key of that encryption"),
    known("AWS_SSE_BUCKET_KEY_ENABLED", "", "S3: that key is one for the bucket"),
    known("AWS_ROLE_ARN", "", "S3: role that is taken with the token of AWS_WEB_IDENTITY_TOKEN_FILE"),
    known("AWS_ROLE_SESSION_NAME", "", "S3: what that session is called"),
    known("AWS_WEB_IDENTITY_TOKEN_FILE", "", "S3: path of a token, as Kubernetes gives it"),
    known("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "", "S3: where ECS gives keys"),
    known("AWS_CONTAINER_CREDENTIALS_FULL_URI", "", "S3: where EKS gives keys"),
    known("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "", "S3: path of the token for that"),
    known("AWS_METADATA_ENDPOINT", "", "S3: where EC2 gives keys, if not at 169.254.169.254"),
    known("GOOGLE_SERVICE_ACCOUNT", "", "Google: path of the JSON file of a service account"),
    secret("GOOGLE_SERVICE_ACCOUNT_KEY", "Google: that JSON itself"),
    known("GOOGLE_APPLICATION_CREDENTIALS", "", "Google: path of any credentials in JSON"),
    known("GOOGLE_BASE_URL", "", "Google: another server than Google's"),
    known("GOOGLE_ALLOW_HTTP", "", "Google: the server may be spoken to without TLS"),
    known("GOOGLE_SKIP_SIGNATURE", "", "Google: requests are not signed, for servers that know nobody"),
    known("AZURE_STORAGE_ACCOUNT_NAME", "", "Azure: the storage account"),
    secret("AZURE_STORAGE_ACCOUNT_KEY", "Azure: its key"),
    secret("AZURE_STORAGE_SAS_TOKEN", "Azure: a shared access signature instead of the key"),
    known("AZURE_STORAGE_ENDPOINT", "", "Azure: another server than <account>.blob.core.windows.net"),
    known("AZURE_ALLOW_HTTP", "", "Azure: the server may be spoken to without TLS"),
    known("AZURE_CLIENT_ID", "", "Azure: application, or managed identity, that is signed in"),
    secret("AZURE_CLIENT_SECRET", "Azure: its secret"),
    known("AZURE_TENANT_ID", "", "Azure: its tenant"),
    known("AZURE_AUTHORITY_HOST", "", "Azure: where it signs in"),
    known("AZURE_FEDERATED_TOKEN_FILE", "", "Azure: path of a token, as Kubernetes gives it"),
    known("AZURE_OBJECT_ID", "", "Azure: managed identity by its object id"),
    known("AZURE_MSI_RESOURCE_ID", "", "Azure: managed identity by its resource id"),
    known("AZURE_MSI_ENDPOINT", "", "Azure: where managed identities are signed in"),
];

/// Where settings come from: the process, or a map in tests.
pub trait Get {
    /// The value of a setting by its full name; an empty one counts as absent.
    fn get(&self, name: &str) -> Option<String>;
}

impl Get for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).filter(|value| !value.is_empty()).cloned()
    }
}

impl Get for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).filter(|value| !value.is_empty()).cloned()
    }
}

/// A setting that cannot be used. The text names it and says what is expected.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct Invalid {
    name: String,
    problem: String,
}

impl Invalid {
    /// This setting has this problem.
    pub fn new(name: &str, problem: impl Display) -> Self {
        Self { name: name.to_owned(), problem: problem.to_string() }
    }
}

/// Settings as given, not yet understood.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// `--check-config` was given: check, say so, and end.
    pub check_only: bool,
    /// `--help` was given.
    pub help: bool,
}

impl Get for Settings {
    fn get(&self, name: &str) -> Option<String> {
        Get::get(&self.values, name)
    }
}

impl Settings {
    /// Reads the process: its arguments, its environment, and the file that one of them names.
    ///
    /// # Errors
    /// When a flag, a `PARLANCE_` variable or a key of the file is not known, or a file cannot be read.
    pub fn from_process() -> Result<Self, Invalid> {
        Self::with_arguments(std::env::args().skip(1))
    }

    /// Reads the process with these arguments in the place of its own.
    ///
    /// # Errors
    /// As [`Settings::from_process`].
    #[allow(clippy::disallowed_methods, reason = "the one allowed home of the process environment")]
    pub fn with_arguments(args: impl IntoIterator<Item = String>) -> Result<Self, Invalid> {
        Self::read(args, std::env::vars())
    }

    /// The same from given arguments and variables.
    ///
    /// # Errors
    /// As [`Settings::from_process`].
    pub fn read(
        args: impl IntoIterator<Item = String>,
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Invalid> {
        let mut flags = Self::read_flags(args)?;
        let mut values = BTreeMap::new();
        for (name, value) in vars {
            if name.starts_with(PREFIX) {
                accept(&name)?;
                values.insert(name, value);
            } else if CLOUD.iter().any(|known| known.is(&name)) {
                values.insert(name, value);
            }
        }
        values.append(&mut flags.values);
        if let Some(path) = Get::get(&values, "PARLANCE_CONFIG") {
            for (name, value) in read_file(&path)? {
                values.entry(name).or_insert(value);
            }
        }
        flags.values = resolve_files(values)?;
        Ok(flags)
    }

    fn read_flags(args: impl IntoIterator<Item = String>) -> Result<Self, Invalid> {
        let mut settings = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--check-config" => settings.check_only = true,
                "--help" | "-h" => settings.help = true,
                _ => {
                    let flag =
                        arg.strip_prefix("--").ok_or_else(|| Invalid::new(&arg, "unknown argument; see --help"))?;
                    let (flag, value) = match flag.split_once('=') {
                        Some((flag, value)) => (flag, Some(value.to_owned())),
                        None => (flag, args.next()),
                    };
                    let name = format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase());
                    accept(&name).map_err(|_| Invalid::new(&arg, "unknown flag; see --help"))?;
                    let value = value.ok_or_else(|| Invalid::new(&arg, "needs a value"))?;
                    settings.values.insert(name, value);
                }
            }
        }
        Ok(settings)
    }
}

/// The text of `--help`.
#[must_use]
pub fn help(program: &str) -> String {
    let mut text = format!("{program}: every flag is also a variable, --listen is PARLANCE_LISTEN.\n\n");
    for setting in SETTINGS {
        let flag = setting.name.trim_start_matches(PREFIX).to_lowercase().replace('_', "-");
        let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
        text.push_str(&format!("  --{flag:<28} {}{default}\n", setting.about));
    }
    text.push_str("  --check-config               reads the settings, says what is wrong, and ends\n");
    text
}

/// The value of a setting, or its default from [`SETTINGS`].
///
/// # Errors
/// When it is missing without a default, or cannot be read as `T`.
pub fn value<T>(get: &impl Get, name: &str) -> Result<T, Invalid>
where
    T: FromStr,
    T::Err: Display,
{
    optional(get, name)?.ok_or_else(|| Invalid::new(name, "is not set, and has no default"))
}

/// The value of a setting, or its default, or nothing.
///
/// # Errors
/// When it cannot be read as `T`.
pub fn optional<T>(get: &impl Get, name: &str) -> Result<Option<T>, Invalid>
where
    T: FromStr,
    T::Err: Display,
{
    let default = || SETTINGS.iter().find(|known| known.name == name).map(|known| known.default.to_owned());
    let Some(text) = get.get(name).or_else(default).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|error| Invalid::new(name, error))
}

/// A socket address, as `LISTEN` settings are.
///
/// # Errors
/// When it is not `address:port`.
pub fn address(get: &impl Get, name: &str) -> Result<SocketAddr, Invalid> {
    value::<String>(get, name)?
        .parse()
        .map_err(|_| Invalid::new(name, "is not an address and port like 127.0.0.1:8080"))
}

/// A duration given in milliseconds.
///
/// # Errors
/// When it is not a whole number.
pub fn millis(get: &impl Get, name: &str) -> Result<Duration, Invalid> {
    value(get, name).map(Duration::from_millis)
}

/// `on`/`true` or `off`/`false`.
///
/// # Errors
/// For any other word.
pub fn switch(get: &impl Get, name: &str) -> Result<bool, Invalid> {
    match value::<String>(get, name)?.as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(Invalid::new(name, "is neither on nor off")),
    }
}

/// What was given of [`CLOUD`] in the names that begin like this, each with its value.
pub fn cloud(get: &impl Get, prefix: &str) -> Vec<(&'static str, String)> {
    let names = CLOUD.iter().map(|known| known.name).filter(|name| name.starts_with(prefix));
    names.filter_map(|name| Some((name, get.get(name)?))).collect()
}

/// Values separated by commas.
///
/// # Errors
/// Never for now; kept alike to the others.
pub fn list(get: &impl Get, name: &str) -> Result<Vec<String>, Invalid> {
    let text: String = optional(get, name)?.unwrap_or_default();
    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

/// The URL of a backend for a program that is one service of many. It may not be one that lives inside a process:
/// a forgotten variable must not split a cluster.
///
/// # Errors
/// When it is missing, or is `memory:` or `sqlite:`.
pub fn shared_url(get: &impl Get, name: &str) -> Result<String, Invalid> {
    let url: String = optional(get, name)?.ok_or_else(|| Invalid::new(name, "must be set for a single service"))?;
    if url.starts_with("memory:") || url.starts_with("sqlite:") {
        return Err(Invalid::new(name, "must name a server that all services share, not memory: or sqlite:"));
    }
    Ok(url)
}

fn accept(name: &str) -> Result<(), Invalid> {
    let known = name.starts_with("PARLANCE_TEST_") || SETTINGS.iter().any(|known| known.is(name));
    if known { Ok(()) } else { Err(Invalid::new(name, "is not a setting of Parlance; see docs/configuration.md")) }
}

/// Puts the content of each `<NAME>_FILE` in the place of `<NAME>`.
fn resolve_files(mut values: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    for setting in SETTINGS.iter().chain(CLOUD).filter(|setting| setting.secret) {
        let file_name = format!("{}_FILE", setting.name);
        if let Some(path) = values.remove(&file_name).filter(|path| !path.is_empty()) {
            if Get::get(&values, setting.name).is_some() {
                return Err(Invalid::new(&file_name, format!("is set, and {} too; keep one", setting.name)));
            }
            let content = fs::read_to_string(PathBuf::from(&path))
                .map_err(|error| Invalid::new(&file_name, format!("cannot read {path}: {error}")))?;
            values.insert(setting.name.to_owned(), content.trim().to_owned());
        }
    }
    Ok(values)
}

fn read_file(path: &str) -> Result<Vec<(String, String)>, Invalid> {
    let invalid = |problem: String| Invalid::new("PARLANCE_CONFIG", format!("{path}: {problem}"));
    let text = fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error| invalid(format!("{error}")))?;
    let mut values = Vec::new();
    for (key, value) in table {
        let name = format!("{PREFIX}{}", key.to_uppercase());
        accept(&name).map_err(|_| invalid(format!("{key} is not a setting of Parlance")))?;
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(invalid(format!("{key} must be a text, a whole number, true or false"))),
        };
        values.push((name, value));
    }
    Ok(values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(args: &[&str], vars: &[(&str, &str)]) -> Result<Settings, Invalid> {
        Settings::read(
            args.iter().map(|arg| (*arg).to_owned()),
            vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let settings = read(&["--listen", "0.0.0.0:1"], &[("PARLANCE_LISTEN", "0.0.0.0:2")]).unwrap();
        assert_eq!(address(&settings, "PARLANCE_LISTEN").unwrap().port(), 1);
        let settings = read(&[], &[("PARLANCE_LISTEN", "0.0.0.0:2")]).unwrap();
        assert_eq!(address(&settings, "PARLANCE_LISTEN").unwrap().port(), 2);
        let settings = read(&[], &[]).unwrap();
        assert_eq!(address(&settings, "PARLANCE_LISTEN").unwrap().port(), 8080);
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let error = read(&[], &[("PARLANCE_LISTN", "x")]).unwrap_err().to_string();
        assert!(error.contains("PARLANCE_LISTN"), "{error}");
        assert!(read(&["--listn", "x"], &[]).is_err());
        assert!(read(&[], &[("PARLANCE_TEST_ANYTHING", "x"), ("HOME", "/")]).is_ok());
    }

    #[test]
    fn a_wrong_value_names_the_setting() {
        let settings = read(&[], &[("PARLANCE_RATE_LIMITS", "maybe")]).unwrap();
        assert!(switch(&settings, "PARLANCE_RATE_LIMITS").unwrap_err().to_string().contains("PARLANCE_RATE_LIMITS"));
    }

    #[test]
    fn what_clouds_set_is_read_and_all_else_left_alone() {
        let file = std::env::temp_dir().join(format!("parlance-cloud-key-{}", std::process::id()));
        fs::write(&file, "secret\n").unwrap();
        let path = file.to_str().unwrap();
        let vars = [
            ("AWS_REGION", "eu-north-1"),
            ("AWS_PROFILE", "x"),
            ("AWS_SECRET_ACCESS_KEY_FILE", path),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AZURE_CLIENT_ID", ""),
        ];
        let settings = read(&[], &vars).unwrap();
        let aws = [
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "eu-north-1".to_owned()),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token".to_owned()),
        ];
        assert_eq!(cloud(&settings, "AWS_"), aws);
        assert_eq!(cloud(&settings, "AZURE_"), []);
        assert!(read(&["--aws-region", "x"], &[]).is_err(), "they are no flags");
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_single_service_refuses_a_backend_inside_its_process() {
        let settings = read(&[], &[("PARLANCE_AMQP_URL", "memory:")]).unwrap();
        assert!(shared_url(&settings, "PARLANCE_AMQP_URL").is_err());
        assert!(shared_url(&settings, "PARLANCE_DATABASE_URL").is_err());
    }
}
