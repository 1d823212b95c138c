//! Access tokens: short JWTs signed with Ed25519 (RFC 8037), verified with public keys alone.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context;
use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    id::{SessionId, UserId},
};

/// Who signs and who is meant: a token of anything else is refused.
const ISSUER: &str = "parlance";
/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 4096;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: UserId,
    /// The session, which may have been revoked since.
    pub sid: SessionId,
    /// Issued at, seconds since the epoch.
    pub iat: i64,
    /// Not valid from then on, seconds since the epoch.
    pub exp: i64,
    /// Who signed it.
    pub iss: String,
    /// Whom it is for.
    pub aud: String,
}

impl Claims {
    /// Whole seconds that the token is still valid, never negative.
    #[must_use]
    pub fn expires_in_s(&self) -> i64 {
        (self.exp - clock::now_ms() / 1000).max(0)
    }
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Well signed, but its time is over.
    #[error("the access token has expired; refresh it")]
    Expired,
    /// Signed with a key that is not known here (it may have been added since).
    #[error("the access token is not valid")]
    UnknownKey,
    /// Anything else.
    #[error("the access token is not valid")]
    Invalid,
}

/// Signs access tokens, and derives the other secrets of a deployment from the same key.
pub struct Signer {
    key: EncodingKey,
    kid: String,
    public: Vec<u8>,
    secret: hmac::Key,
}

impl Signer {
    /// Reads an Ed25519 private key in PKCS#8 PEM.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body).context("the signing key is not PEM")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| anyhow::anyhow!("the signing key is not an Ed25519 key in PKCS#8"))?;
        let public = pair.public_key().as_ref().to_vec();
        let kid =
            URL_SAFE_NO_PAD.encode(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &public).as_ref()[..12]);
        Ok(Self { key: EncodingKey::from_ed_der(&der), kid, public, secret: hmac::Key::new(hmac::HMAC_SHA256, &der) })
    }

    /// Makes a new private key, as PEM.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate_pem() -> anyhow::Result<String> {
        let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("cannot make a key"))?;
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
    }

    /// A token for this session, issued at `issued_at_ms`. The same arguments give the same token.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, user: UserId, session: SessionId, issued_at_ms: i64, ttl_s: i64) -> anyhow::Result<String> {
        let iat = issued_at_ms / 1000;
        let claims =
            Claims { sub: user, sid: session, iat, exp: iat + ttl_s, iss: ISSUER.to_owned(), aud: ISSUER.to_owned() };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }

    /// A secret that only holders of the key can derive, different for each `purpose` and `input`.
    #[must_use]
    pub fn derive(&self, purpose: &str, input: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(input);
        let mut derived = [0; 32];
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }

    /// The public keys as a JWK set (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> String {
        serde_json::json!({"keys": [{
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid,
            "x": URL_SAFE_NO_PAD.encode(&self.public),
        }]})
        .to_string()
    }
}

/// Public keys by their id.
#[derive(Clone, Default)]
pub struct Verifier {
    keys: Arc<HashMap<String, DecodingKey>>,
}

impl Verifier {
    /// Reads a JWK set; keys of other kinds than Ed25519 are left out.
    ///
    /// # Errors
    /// When it is not a JWK set.
    pub fn from_jwks(jwks: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Key>,
        }
        #[derive(Deserialize)]
        struct Key {
            kty: String,
            crv: Option<String>,
            kid: Option<String>,
            x: Option<String>,
        }
        let set: Set = serde_json::from_str(jwks).context("not a JWK set")?;
        let mut keys = HashMap::new();
        for key in set.keys {
            if let (("OKP", Some("Ed25519")), Some(kid), Some(x)) =
                ((key.kty.as_str(), key.crv.as_deref()), key.kid, key.x)
            {
                keys.insert(kid, DecodingKey::from_ed_components(&x)?);
            }
        }
        Ok(Self { keys: Arc::new(keys) })
    }

    /// Checks signature, algorithm, issuer, audience and time of a token. The algorithm is bound to the key, never
    /// taken from the token; the key id is only looked up.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn verify(&self, token: &str) -> Result<Claims, Rejected> {
        if token.len() > MAX_TOKEN {
            return Err(Rejected::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Rejected::Invalid)?;
        if header.alg != Algorithm::EdDSA {
            return Err(Rejected::Invalid);
        }
        let key = header.kid.and_then(|kid| self.keys.get(&kid)).ok_or(Rejected::UnknownKey)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let data = jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Rejected::Expired,
            _ => Rejected::Invalid,
        })?;
        Ok(data.claims)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_accepted_by_its_own_key_only() {
        let (ours, other) = (signer(), signer());
        let verifier = Verifier::from_jwks(&ours.jwks()).unwrap();
        let (user, session) = (UserId::generate(), SessionId::generate());
        let token = ours.sign(user, session, clock::now_ms(), 60).unwrap();
        assert_eq!(verifier.verify(&token).unwrap().sub, user);
        let foreign = other.sign(user, session, clock::now_ms(), 60).unwrap();
        assert_eq!(verifier.verify(&foreign), Err(Rejected::UnknownKey));
    }

    #[test]
    fn an_old_token_says_that_it_has_expired() {
        let ours = signer();
        let verifier = Verifier::from_jwks(&ours.jwks()).unwrap();
        let token = ours.sign(UserId::generate(), SessionId::generate(), clock::now_ms() - 120_000, 60).unwrap();
        assert_eq!(verifier.verify(&token), Err(Rejected::Expired));
    }

    #[test]
    fn a_token_without_a_signature_or_of_another_algorithm_is_refused() {
        let ours = signer();
        let verifier = Verifier::from_jwks(&ours.jwks()).unwrap();
        let token = ours.sign(UserId::generate(), SessionId::generate(), clock::now_ms(), 60).unwrap();
        let (_, rest) = token.split_once('.').unwrap();
        let (claims, signature) = rest.split_once('.').unwrap();
        for header in [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"HS256","typ":"JWT"}"#] {
            let header = URL_SAFE_NO_PAD.encode(header);
            assert_eq!(verifier.verify(&format!("{header}.{claims}.{signature}")), Err(Rejected::Invalid));
            assert_eq!(verifier.verify(&format!("{header}.{claims}.")), Err(Rejected::Invalid));
        }
        assert_eq!(verifier.verify(""), Err(Rejected::Invalid));
        assert_eq!(verifier.verify(&"x".repeat(100_000)), Err(Rejected::Invalid));
    }
}
