//! Which store the files are in: a folder, or a bucket of S3, Google or Azure by its URL, with the settings that the clouds'
//! own tools use. Nothing is asked of it here.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, path::Path, signer::Signer,
};
use service_kit::env::{self, Get, Invalid};
use url::Url;

use super::partial::Connector;

const URL: &str = "PARLANCE_FILES_URL";
/// How long a connection to an object store may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an object store may say nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// How often a request is sent again that failed in a way that may pass.
const RETRIES: usize = 3;
/// After which none is begun again.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// Where the bytes of files are. Cheap to clone.
#[derive(Clone)]
pub struct Place(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Folder(PathBuf),
    Objects(Objects),
}

/// A bucket, or a part of one.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) signer: Arc<dyn Signer>,
    /// What the names of all objects begin with.
    pub(super) prefix: Path,
    /// Whether a signed URL can say with which headers it is answered.
    pub(super) signs_headers: bool,
}

impl fmt::Debug for Place {
    /// The clients of object stores hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Folder(folder) => f.debug_tuple("Folder").field(folder).finish(),
            Kind::Objects(objects) => f.debug_tuple("Objects").field(&objects.prefix).finish_non_exhaustive(),
        }
    }
}

impl Place {
    /// Reads the URL and what belongs to it. Asks nothing of the store.
    ///
    /// # Errors
    /// When one of these cannot be used; the text names it.
    pub(super) fn from_get(get: &impl Get) -> Result<Option<Self>, Invalid> {
        let Some(text) = env::optional::<String>(get, URL)? else { return Ok(None) };
        if let Some(folder) = text.strip_prefix("file:") {
            let folder = folder.strip_prefix("//").unwrap_or(folder);
            return Ok(Some(Self(Kind::Folder(folder.into()))));
        }
        let expected = "must be file:<folder>, or s3://, gs:// or az:// with a bucket and perhaps a prefix";
        let url = Url::parse(&text).map_err(|_| Invalid::new(URL, expected))?;
        let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or_else(|| Invalid::new(URL, expected))?;
        let is_bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !is_bare || url.password().is_some() || url.port().is_some() {
            return Err(Invalid::new(
                URL,
                "names a bucket and a prefix; what else there is to say has its own settings",
            ));
        }
        let prefix = Path::from_url_path(url.path()).map_err(|error| Invalid::new(URL, error))?;
        let objects = match url.scheme() {
            "s3" => amazon(get, bucket, prefix),
            "gs" => google(get, bucket, prefix),
            "az" | "azure" => azure(get, bucket, prefix),
            _ => Err(Invalid::new(URL, expected)),
        };
        Ok(Some(Self(Kind::Objects(objects?))))
    }

    /// Whether it can sign URLs.
    pub(super) fn signs(&self) -> bool {
        matches!(self.0, Kind::Objects(_))
    }
}

fn amazon(get: &impl Get, bucket: &str, prefix: Path) -> Result<Objects, Invalid> {
    let settings = env::cloud(get, "AWS_");
    needs_tls(&settings, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], "AWS_ALLOW_HTTP")?;
    let builder = AmazonS3Builder::new().with_client_options(client()).with_retry(retry());
    let mut builder = builder.with_bucket_name(bucket).with_http_connector(Connector);
    for (name, value) in settings {
        builder = builder.with_config(key(name)?, value);
    }
    let store = Arc::new(builder.build().map_err(|error| Invalid::new(URL, error))?);
    Ok(Objects { store: store.clone(), signer: store, prefix, signs_headers: true })
}

fn google(get: &impl Get, bucket: &str, prefix: Path) -> Result<Objects, Invalid> {
    let settings = env::cloud(get, "GOOGLE_");
    needs_tls(&settings, &["GOOGLE_BASE_URL"], "GOOGLE_ALLOW_HTTP")?;
    let builder = GoogleCloudStorageBuilder::new().with_client_options(client()).with_retry(retry());
    let mut builder = builder.with_bucket_name(bucket);
    for (name, value) in settings {
        builder = builder.with_config(key(name)?, value);
    }
    let store = Arc::new(builder.build().map_err(|error| Invalid::new(URL, error))?);
    Ok(Objects { store: store.clone(), signer: store, prefix, signs_headers: true })
}

fn azure(get: &impl Get, container: &str, prefix: Path) -> Result<Objects, Invalid> {
    let settings = env::cloud(get, "AZURE_");
    needs_tls(&settings, &["AZURE_STORAGE_ENDPOINT"], "AZURE_ALLOW_HTTP")?;
    let builder = MicrosoftAzureBuilder::new().with_client_options(client()).with_retry(retry());
    let mut builder = builder.with_container_name(container);
    for (name, value) in settings {
        builder = builder.with_config(key(name)?, value);
    }
    let store = Arc::new(builder.build().map_err(|error| Invalid::new(URL, error))?);
    // The signature of Azure has a place for these, and the library none.
    Ok(Objects { store: store.clone(), signer: store, prefix, signs_headers: false })
}

/// The library's name of a setting.
fn key<K: std::str::FromStr<Err = object_store::Error>>(name: &str) -> Result<K, Invalid> {
    name.to_ascii_lowercase().parse().map_err(|error| Invalid::new(name, error))
}

/// A server without TLS is refused here, where the reason can be told, unless it is wanted.
fn needs_tls(settings: &[(&str, String)], endpoints: &[&str], allow: &str) -> Result<(), Invalid> {
    let plain = |(name, value): &&(&str, String)| endpoints.contains(name) && value.starts_with("http:");
    let allowed = settings.iter().any(|(name, _)| *name == allow);
    match settings.iter().find(plain) {
        Some((name, _)) if !allowed => Err(Invalid::new(name, format!("is plain http, which needs {allow}=true"))),
        _ => Ok(()),
    }
}

/// No bound on a request as a whole: whoever reads a large file slowly takes as long as it takes.
fn client() -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT).with_read_timeout(SILENCE)
}

fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_FOR }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn place(settings: &[(&str, &str)]) -> Result<Place, String> {
        let given: HashMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Place::from_get(&given).map(Option::unwrap).map_err(|error| error.to_string())
    }

    /// What a place signs for an object below its prefix: that shows the server, the bucket, the prefix and the key.
    async fn signed(settings: &[(&str, &str)]) -> Url {
        let Kind::Objects(objects) = place(settings).unwrap().0 else { panic!("a folder") };
        let path = objects.prefix.clone().join("x");
        objects.signer.signed_url(http::Method::GET, &path, Duration::from_secs(60)).await.unwrap()
    }

    const AMAZON: [(&str, &str); 3] =
        [(URL, "s3://a-bucket/some/prefix"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];

    #[tokio::test]
    async fn a_bucket_of_s3_is_found_by_its_usual_settings() {
        let url = signed(&[&AMAZON[..], &[("AWS_REGION", "eu-north-1")]].concat()).await;
        assert!(url.as_str().starts_with("https://s3.eu-north-1.amazonaws.com/a-bucket/some/prefix/x?"), "{url}");
        assert!(url.as_str().contains("%2Feu-north-1%2Fs3%2F"), "{url}");
        let own = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"), ("AWS_ALLOW_HTTP", "true")];
        let url = signed(&[&AMAZON[..], &own].concat()).await;
        assert!(url.as_str().starts_with("http://127.0.0.1:9000/a-bucket/some/prefix/x?"), "{url}");
        let hosted = [("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")];
        let url = signed(&[&AMAZON[..], &hosted].concat()).await;
        assert_eq!(url.host_str(), Some("a-bucket.s3.us-east-1.amazonaws.com"));
    }

    #[tokio::test]
    async fn a_container_of_azure_is_found_by_its_usual_settings() {
        for scheme in ["az", "azure"] {
            let container = format!("{scheme}://some-files/prefix/");
            let settings =
                [(URL, &*container), ("AZURE_STORAGE_ACCOUNT_NAME", "acme"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];
            let url = signed(&settings).await;
            assert!(url.as_str().starts_with("https://acme.blob.core.windows.net/some-files/prefix/x?"), "{url}");
            assert!(!url.as_str().contains("c2VjcmV0"), "{url}");
        }
        let error = place(&[(URL, "az://some-files")]).unwrap_err();
        assert!(error.starts_with(URL), "{error}");
    }

    #[tokio::test]
    async fn a_bucket_of_google_is_found_by_its_usual_settings() {
        let account = r#"{"private_key":"a","private_key_id":"b","client_email":"c@d","disable_oauth":true}"#;
        let settings = [(URL, "gs://a-bucket"), ("GOOGLE_SERVICE_ACCOUNT_KEY", account)];
        assert!(place(&settings).unwrap().signs());
        let missing = place(&[(URL, "gs://a-bucket"), ("GOOGLE_SERVICE_ACCOUNT", "/does/not/exist")]).unwrap_err();
        assert!(missing.starts_with(URL), "{missing}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for url in
            ["ftp://x/y", "s3:", "s3:///x", "bucket", "s3://key:secret@bucket", "s3://bucket?region=x", "s3://a:1/"]
        {
            let error = place(&[&[(URL, url)], &AMAZON[1..]].concat()).unwrap_err();
            assert!(error.starts_with(URL) && !error.contains("secret"), "{url}: {error}");
        }
        let plain = place(&[&AMAZON[..], &[("AWS_ENDPOINT_URL", "http://minio:9000")]].concat()).unwrap_err();
        assert_eq!(plain, "AWS_ENDPOINT_URL: is plain http, which needs AWS_ALLOW_HTTP=true");
        let half = place(&AMAZON[..2]).unwrap_err();
        assert!(half.starts_with(URL), "{half}");
    }

    /// Every setting that is read for a store is one that its client knows.
    #[test]
    fn no_setting_is_without_use() {
        for known in env::CLOUD {
            let is_known = match known.name.split('_').next() {
                Some("AWS") => key::<object_store::aws::AmazonS3ConfigKey>(known.name).is_ok(),
                Some("GOOGLE") => key::<object_store::gcp::GoogleConfigKey>(known.name).is_ok(),
                Some("AZURE") => key::<object_store::azure::AzureConfigKey>(known.name).is_ok(),
                _ => false,
            };
            assert!(is_known, "{}", known.name);
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", place(&AMAZON).unwrap());
        assert!(!shown.contains("key"), "{shown}");
    }
}
