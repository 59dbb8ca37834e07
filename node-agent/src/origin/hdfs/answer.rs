//! What the errors of name nodes and data nodes mean.

use crate::origin::{OriginError, shown};
use hdfs_native::HdfsError;
use std::io::ErrorKind;

const KERBEROS: &str = "and Kerberos is not supported";

/// The error of a request about `what`, which `user` made.
pub(super) fn meaning(what: &str, user: &str, error: &HdfsError) -> OriginError {
    use HdfsError as E;
    match error {
        E::RPCError(class, said) | E::FatalRPCError(class, said) => exception(what, user, class, said),
        E::FileNotFound(_) => OriginError::NotFound(format!("{what} does not exist")),
        E::IsADirectoryError(_) => OriginError::NotFound(format!("{what} is a directory")),
        // A name node that wants Kerberos says so under a number that nobody waits for, and hangs up.
        E::IOError(error) if error.kind() == ErrorKind::ConnectionAborted => {
            OriginError::Unavailable(format!(
                "the name node of {what} closes the connection, as one does that wants Kerberos, {KERBEROS}"
            ))
        }
        E::SASLError(_) | E::GSSAPIError(..) | E::NoSASLMechanism => {
            OriginError::Denied(format!("{what} wants proof of who asks, {KERBEROS}"))
        }
        E::UnsupportedFeature(why) | E::UnsupportedErasureCodingPolicy(why) => {
            OriginError::Refused(format!("{what} is kept in a way that is not supported: {}", shown(why)))
        }
        E::InvalidRPCResponse(_) | E::InternalError(_) | E::UrlParseError(_) | E::XmlParseError(_) => {
            OriginError::Malformed(format!(
                "{what} has an answer that makes no sense: {}",
                shown(&error.to_string())
            ))
        }
        error => OriginError::Unavailable(format!("{what} cannot be read: {}", shown(&error.to_string()))),
    }
}

/// A Java exception that a name node sent, by the name of its class.
fn exception(what: &str, user: &str, class: &str, said: &str) -> OriginError {
    // What follows is the name node's own stack.
    let said = shown(said.lines().next().unwrap_or_default());
    match class.rsplit(['.', '$']).next().unwrap_or_default() {
        "AccessControlException" | "AuthorizationException" if said.contains("SIMPLE authentication") => {
            OriginError::Denied(format!("{what} is read with Kerberos only, {KERBEROS}"))
        }
        // Below a file there is nothing to be denied.
        "AccessControlException" if said.ends_with("(is not a directory)") => {
            OriginError::NotFound(format!("{what} does not exist"))
        }
        "AccessControlException" | "AuthorizationException" => {
            OriginError::Denied(format!("{what} may not be read by user {user}: {said}"))
        }
        "FileNotFoundException" | "ParentNotDirectoryException" => {
            OriginError::NotFound(format!("{what} does not exist"))
        }
        "InvalidPathException" | "UnresolvedPathException" | "UnresolvedLinkException" => {
            OriginError::Refused(format!("{what} is no path that can be read: {said}"))
        }
        "RetriableException" if said.contains("too busy") => OriginError::Throttled {
            message: format!("the name node of {what} is too busy"),
            retry_after: None,
        },
        "StandbyException" => OriginError::Unavailable(format!("none of the name nodes of {what} is active")),
        _ => OriginError::Unavailable(format!("{what} cannot be read: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_can_decide_by_what_went_wrong() {
        let rpc = |class: &str, said: &str| HdfsError::RPCError(class.to_owned(), said.to_owned());
        let denied = "org.apache.hadoop.security.AccessControlException";
        for (error, reason, sentence) in [
            (
                rpc(denied, "Permission denied: user=ann, access=EXECUTE\n\tat org.apache"),
                "Denied",
                "hdfs://nn/a may not be read by user ann: Permission denied: user=ann, access=EXECUTE",
            ),
            (
                rpc(denied, "SIMPLE authentication is not enabled.  Available:[TOKEN, KERBEROS]"),
                "Denied",
                "hdfs://nn/a is read with Kerberos only, and Kerberos is not supported",
            ),
            (
                rpc("java.io.FileNotFoundException", "File does not exist: /a"),
                "NotFound",
                "hdfs://nn/a does not exist",
            ),
            (HdfsError::FileNotFound("/a".to_owned()), "NotFound", "hdfs://nn/a does not exist"),
            (
                rpc("org.apache.hadoop.ipc.StandbyException", "Operation category READ is not supported"),
                "Unavailable",
                "none of the name nodes of hdfs://nn/a is active",
            ),
            (
                rpc("org.apache.hadoop.ipc.RetriableException", "Server is too busy."),
                "Throttled",
                "the name node of hdfs://nn/a is too busy",
            ),
            (
                rpc(
                    "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
                    "Zero blocklocations for /a.",
                ),
                "Unavailable",
                "hdfs://nn/a cannot be read: Zero blocklocations for /a.",
            ),
            (
                HdfsError::UnsupportedFeature("file is in an HDFS encryption zone".to_owned()),
                "Refused",
                "hdfs://nn/a is kept in a way that is not supported: file is in an HDFS encryption zone",
            ),
            (HdfsError::ChecksumError, "Unavailable", "hdfs://nn/a cannot be read: checksums didn't match"),
        ] {
            let meaning = meaning("hdfs://nn/a", "ann", &error);
            assert_eq!((meaning.reason(), meaning.to_string().as_str()), (reason, sentence));
        }
    }
}
