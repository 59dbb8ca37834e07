//! What the API server says to a request that writes, which is not waited for for ever.

use std::time::Duration;

/// Longest time that one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the API server said when it did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Answer {
    /// It refused, by this status.
    #[error("{1}")]
    Code(u16, String),
    /// It was not reached, or was not understood.
    #[error("{0}")]
    Other(String),
}

/// Makes a request and waits for its answer, but not for long.
pub(crate) async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Answer> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(kube::Error::Api(status))) => Err(Answer::Code(status.code, status.message.clone())),
        Ok(Err(error)) => Err(Answer::Other(error.to_string())),
        Err(_) => Err(Answer::Other("the API server did not answer in time".to_owned())),
    }
}
