//! What both programs' shells share: configuration, logs, leader election, TLS, shutdown.
