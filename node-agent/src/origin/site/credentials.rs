//! With whose identity a web server is read: a user's, a token's or nobody's.

use super::Place;
use crate::credentials::SecretValues;
use crate::origin::identity::{Identities, NamedSecret};
use crate::origin::{Destination, OriginError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::HeaderValue;

const TOKEN: &str = "token";
const USERNAME: &str = "username";
const PASSWORD: &str = "password";

/// The Secret that the Dataset names, if it does. The agents' own identity is for no
/// server that anybody may name.
#[derive(Debug)]
pub(in crate::origin) struct Credentials {
    secret: Option<NamedSecret>,
    destination: Destination,
}

impl Credentials {
    pub(in crate::origin) fn choose(of: Identities<'_>, place: &Place) -> Self {
        Self { secret: of.named_secret(), destination: of.destination(place.base(), &[]) }
    }

    /// The value of the header that says who asks.
    pub(in crate::origin) async fn get(&self) -> Result<Option<HeaderValue>, OriginError> {
        let Some(secret) = &self.secret else { return Ok(None) };
        let header = |values: &SecretValues| {
            values.allow(&self.destination, true)?;
            header(values)
        };
        secret.get(header).await.map(Some)
    }

    /// The server refused them.
    pub(super) fn doubt(&self) {
        if let Some(secret) = &self.secret {
            secret.doubt();
        }
    }

    /// For sentences.
    pub(super) fn shown(&self) -> String {
        match &self.secret {
            Some(secret) => secret.credentials(),
            None => "requests without credentials".to_owned(),
        }
    }
}

fn header(values: &SecretValues) -> Result<HeaderValue, OriginError> {
    let text = if let Some(token) = values.text(TOKEN)? {
        format!("Bearer {token}")
    } else if let Some(username) = values.text(USERNAME)? {
        // A password may have spaces, since it is encoded.
        let password = values.document(PASSWORD).ok_or_else(|| values.lacks(PASSWORD))?;
        format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
    } else {
        return Err(values.lacks("token, or username and password"));
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| values.wrong(TOKEN, "is no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::secret_values;

    #[test]
    fn a_secret_has_a_token_or_a_user() {
        let of = |pairs: &[(&str, &str)]| header(&secret_values(pairs));
        assert_eq!(of(&[(TOKEN, "t")]).unwrap(), "Bearer t");
        let basic = of(&[(USERNAME, "ann"), (PASSWORD, "open sesame")]).unwrap();
        assert_eq!(basic, "Basic YW5uOm9wZW4gc2VzYW1l");
        assert!(!format!("{basic:?}").contains("YW5u"));
        for (pairs, sentence) in [
            (vec![], "Secret ns/s has no key token, or username and password"),
            (vec![(USERNAME, "ann")], "Secret ns/s has no key password"),
        ] {
            assert_eq!(of(&pairs).unwrap_err().to_string(), sentence);
        }
    }
}
