//! Access tokens that no server may take.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

/// A good token's claims under `alg: none`, without a signature.
pub fn without_algorithm(token: &str) -> String {
    let (_, claims) = parts(token);
    let header = json!({ "alg": "none", "typ": "JWT" });
    format!("{}.{claims}.", BASE64.encode(header.to_string()))
}

/// A good token's header and claims, signed by a key of our own.
pub fn by_another_key(token: &str) -> String {
    let (header, claims) = parts(token);
    let signed = format!("{header}.{claims}");
    let key = Ed25519KeyPair::generate().expect("a key");
    let signature = BASE64.encode(key.sign(signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}

/// A good token with other claims under its old signature.
pub fn with_other_claims(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let (header, claims) = parts(token);
    let mut claims: Value = serde_json::from_slice(&BASE64.decode(claims).expect("base64url")).expect("JSON claims");
    change(&mut claims);
    let signature = token.rsplit('.').next().expect("rsplit has a first part");
    format!("{header}.{}.{signature}", BASE64.encode(claims.to_string()))
}

fn parts(token: &str) -> (&str, &str) {
    let mut parts = token.split('.');
    let header = parts.next().expect("split has a first part");
    (header, parts.next().expect("a token has claims"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgeries_keep_the_form_of_a_token() {
        let token = format!("{}.{}.c2ln", BASE64.encode(r#"{"alg":"EdDSA"}"#), BASE64.encode(r#"{"sub":"u"}"#));
        for forged in
            [without_algorithm(&token), by_another_key(&token), with_other_claims(&token, |c| c["sub"] = json!("v"))]
        {
            assert_eq!(forged.split('.').count(), 3);
            assert_ne!(forged, token);
        }
    }
}
