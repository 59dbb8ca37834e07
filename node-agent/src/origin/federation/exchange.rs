//! One request to a service that exchanges tokens.

use crate::origin::token_client::is_failing;
use crate::origin::web::{Meaning, Operation, Refusal, body, unavailable};
use crate::origin::{OriginError, shown};
use http::StatusCode;
use reqwest::RequestBuilder;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST: usize = 256 << 10;

/// What a service said in a refusal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::origin) struct Said {
    pub(in crate::origin) code: String,
    pub(in crate::origin) message: String,
    /// It says itself that another try may succeed.
    pub(in crate::origin) passing: bool,
}

/// A request that is made once.
pub(in crate::origin) struct Exchange<'a> {
    /// For sentences: who is asked.
    pub(in crate::origin) service: &'a str,
    /// For sentences: who asks.
    pub(in crate::origin) who: &'a str,
    /// What must never be shown, even if the service says it.
    pub(in crate::origin) token: &'a str,
    /// Reads the body of a refusal.
    pub(in crate::origin) said: fn(&str) -> Said,
}

impl Exchange<'_> {
    /// The body of a success, as `read` reads it.
    pub(in crate::origin) async fn ask<T>(
        &self,
        request: RequestBuilder,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, OriginError> {
        let failed = |error: reqwest::Error| unavailable(self.service, error);
        let answer = request.timeout(PATIENCE).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(self.refused(&Refusal::read(Operation::Get, answer).await));
        }
        let bytes = body(answer, LONGEST).await.map_err(failed)?.unwrap_or_default();
        // A reader's error might quote what it read.
        std::str::from_utf8(&bytes)
            .ok()
            .and_then(read)
            .ok_or_else(|| OriginError::Malformed(format!("{} answers with no credentials", self.service)))
    }

    fn refused(&self, refusal: &Refusal) -> OriginError {
        let text = std::str::from_utf8(&refusal.body).unwrap_or_default();
        let said = if text.contains(self.token) { Said::default() } else { (self.said)(text) };
        let meaning = match refusal.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Meaning::Throttled,
            status if is_failing(status) => Meaning::Failing,
            _ if said.passing => Meaning::GaveUp,
            _ => Meaning::Denied,
        };
        let said = refusal.said(&said.code, &shown(&said.message));
        refusal.error(meaning, self.service, self.who, &said)
    }
}

/// Whether a token can travel in a header.
pub(in crate::origin) fn plain(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}
