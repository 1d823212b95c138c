//! What standalone makes of its settings, and whether docs/configuration.md tells the truth about them.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use service_kit::{
    auth::Signer,
    env::{self, CLOUD, PREFIX, SETTINGS},
};
use standalone::Config;

const DOCS: &str = include_str!("../../../docs/configuration.md");
/// What begins like this belongs to tests; each name is documented, and none is a setting.
const TEST_HOOK: &str = "PARLANCE_TEST_";

fn read(settings: &[(&str, &str)]) -> anyhow::Result<Config> {
    let given: HashMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_get(&given)
}

fn refusal(name: &str, value: &str) -> String {
    let error = read(&[(name, value)]).map(|_| ()).unwrap_err();
    format!("{error:#}")
}

/// The names in a text that begin with the prefix.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with(PREFIX) && *word != PREFIX).collect()
}

/// The columns of the table row that begins with this name.
fn row(name: &str) -> Vec<&'static str> {
    let start = format!("| `{name}` |");
    let line = DOCS.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("{name} has no row in docs/configuration.md"));
    line.trim_matches('|').split(" | ").map(str::trim).collect()
}

#[test]
fn every_setting_is_documented_with_its_flag_and_default() {
    for setting in SETTINGS {
        let row = row(setting.name);
        assert_eq!(row.len(), 5, "{}", setting.name);
        let flag = setting.name.trim_start_matches(PREFIX).to_lowercase().replace('_', "-");
        assert_eq!(row[1], format!("`--{flag}`"));
        if !setting.default.is_empty() {
            assert_eq!(row[2], format!("`{}`", setting.default), "the default of {}", setting.name);
        }
        assert_eq!(row[4].starts_with("*Secret.*"), setting.secret, "whether {} is secret", setting.name);
    }
}

#[test]
fn every_setting_of_a_cloud_is_documented() {
    for setting in CLOUD {
        let row = row(setting.name);
        assert_eq!(row.len(), 2, "{}", setting.name);
        assert_eq!(row[1].starts_with("*Secret.*"), setting.secret, "whether {} is secret", setting.name);
    }
}

#[test]
fn a_folder_is_not_asked_to_sign() {
    let error = refusal("PARLANCE_FILES_SIGNED_URLS", "true");
    assert!(error.starts_with("PARLANCE_FILES_SIGNED_URLS: a folder cannot sign"), "{error}");
    assert!(error.contains("s3://"), "it says what to do: {error}");
}

#[test]
fn every_name_in_the_documentation_exists() {
    for name in names(DOCS) {
        let is_setting = SETTINGS.iter().any(|setting| {
            setting.name == name || (setting.secret && name.strip_suffix("_FILE") == Some(setting.name))
        });
        assert!(is_setting || name.starts_with(TEST_HOOK), "docs/configuration.md names {name}, which does not exist");
    }
}

#[test]
fn without_settings_everything_is_in_the_data_folder_and_in_memory() {
    let config = read(&[("PARLANCE_DATA", "here/100%?")]).unwrap();
    assert_eq!(config.data, Path::new("here/100%?"));
    assert_eq!(config.database_url, "sqlite:here/100%25%3F/parlance.db");
    assert_eq!((config.amqp_url.as_str(), config.redis_url.as_str()), ("memory:", "memory:"));
    assert_eq!(config.presence.redis_url, "memory:");
    assert_eq!(config.chat.database_url, config.database_url);
    assert!(config.chat.signing_key.is_empty(), "the one in the data folder");
    assert_eq!(config.listen.port(), 8080);
}

#[test]
fn each_backend_is_replaced_by_its_url_alone() {
    let config = read(&[("PARLANCE_REDIS_URL", "redis://r")]).unwrap();
    assert_eq!((config.amqp_url.as_str(), config.presence.redis_url.as_str()), ("memory:", "redis://r"));
    assert!(config.database_url.starts_with("sqlite:"));
    let config = read(&[("PARLANCE_AMQP_URL", "amqps://a")]).unwrap();
    assert_eq!((config.amqp_url.as_str(), config.redis_url.as_str()), ("amqps://a", "memory:"));
    let config = read(&[("PARLANCE_DATABASE_URL", "postgres://p/q")]).unwrap();
    assert_eq!((config.chat.database_url.as_str(), config.amqp_url.as_str()), ("postgres://p/q", "memory:"));
}

#[test]
fn a_wrong_value_names_its_setting_and_does_not_repeat_a_secret() {
    let secret = "s3cr3t";
    for name in ["PARLANCE_DATABASE_URL", "PARLANCE_AMQP_URL", "PARLANCE_REDIS_URL", "PARLANCE_SIGNING_KEY"] {
        let said = refusal(name, &format!("http://{secret}@x"));
        assert!(said.contains(name) && !said.contains(secret), "{said}");
    }
    for name in ["PARLANCE_LISTEN", "PARLANCE_ADMIN_LISTEN", "PARLANCE_SHUTDOWN_GRACE_MS", "PARLANCE_PRESENCE_GRACE_MS"]
    {
        assert!(refusal(name, "x").contains(name));
    }
}

#[test]
fn a_given_signing_key_is_taken() {
    let pem = Signer::generate_pem().unwrap();
    assert_eq!(read(&[("PARLANCE_SIGNING_KEY", &pem)]).unwrap().chat.signing_key, pem);
}

#[test]
fn a_single_service_refuses_what_standalone_defaults_to() {
    let config = read(&[]).unwrap();
    let cases = [
        ("PARLANCE_DATABASE_URL", config.database_url),
        ("PARLANCE_AMQP_URL", config.amqp_url),
        ("PARLANCE_REDIS_URL", config.redis_url),
    ];
    for (name, url) in cases {
        let given = HashMap::from([(name.to_owned(), url)]);
        assert!(env::shared_url(&given, name).unwrap_err().to_string().contains(name));
        assert!(env::shared_url(&HashMap::<String, String>::new(), name).is_err(), "and has no default for {name}");
    }
}
