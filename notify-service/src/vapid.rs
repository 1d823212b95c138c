//! The key by which push services know this deployment, and the tokens that it signs (VAPID, RFC 8292).

use anyhow::Context as _;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use service_kit::clock;

/// Life of a token in seconds. RFC 8292 allows 24 h.
const TTL_S: i64 = 12 * 3600;

/// A P-256 key that signs for push services.
pub struct Vapid {
    key: EncodingKey,
    public: Vec<u8>,
    subject: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
}

impl Vapid {
    /// Reads a P-256 private key in PKCS#8 PEM. `subject` is a `mailto:` or `https:` URL of whoever runs this; some push
    /// services refuse tokens without one.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_pem(pem: &str, subject: Option<String>) -> anyhow::Result<Self> {
        let (key, public) = read_p256(pem)?;
        Ok(Self { key, public, subject })
    }

    /// Makes a new private key, as PEM.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate_pem() -> anyhow::Result<String> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("cannot make a key"))?;
        let body = STANDARD.encode(der.as_ref());
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
    }

    /// The uncompressed point, 65 bytes.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The `Authorization` of a request to an endpoint of this origin.
    ///
    /// # Errors
    /// When signing fails.
    pub(crate) fn authorization(&self, origin: &str) -> anyhow::Result<String> {
        let claims = Claims { aud: origin, exp: clock::now_ms() / 1000 + TTL_S, sub: self.subject.as_deref() };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)?;
        Ok(format!("vapid t={token}, k={}", URL_SAFE_NO_PAD.encode(&self.public)))
    }
}

/// Reads a P-256 private key in PKCS#8 PEM: what signs, and its public point, uncompressed.
///
/// # Errors
/// When it is not one.
pub(crate) fn read_p256(pem: &str) -> anyhow::Result<(EncodingKey, Vec<u8>)> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = STANDARD.decode(body).context("the key is not PEM")?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
        .map_err(|_| anyhow::anyhow!("the key is not a P-256 key in PKCS#8"))?;
    Ok((EncodingKey::from_ec_der(&der), pair.public_key().as_ref().to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_made_is_read_and_signs() {
        let vapid = Vapid::from_pem(&Vapid::generate_pem().unwrap(), None).unwrap();
        assert_eq!((vapid.public().len(), vapid.public()[0]), (65, 4));
        assert!(vapid.authorization("https://push.example").unwrap().starts_with("vapid t="));
    }

    /// As OpenSSL and `cargo xtask cluster` write it: without the public half.
    #[test]
    fn a_key_without_its_public_half_signs_as_well() {
        let der = [
            &[0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06][..],
            &[0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04],
            &[0x20],
            &[7; 32],
        ]
        .concat();
        let vapid = Vapid::from_pem(&STANDARD.encode(der), None).unwrap();
        assert_eq!(vapid.public().len(), 65);
        assert!(vapid.authorization("https://push.example").unwrap().contains(", k="));
    }

    #[test]
    fn another_key_is_refused() {
        let ed25519 = service_kit::auth::Signer::generate_pem().unwrap();
        for bad in ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", &ed25519] {
            assert!(Vapid::from_pem(bad, None).is_err(), "{bad}");
        }
    }
}
