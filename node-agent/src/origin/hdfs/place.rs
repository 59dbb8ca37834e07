//! Which directory of which cluster an origin is, and as whom it is read.

use hearth_api::OriginOptions;

/// Who reads when the Dataset does not say.
const USER: &str = "hearth";
/// Where name nodes listen unless they are told otherwise.
const PORT: u16 = 8020;
/// Name nodes of one name service: one is active, the others are there in case.
const MOST_NAME_NODES: usize = 8;

/// The name nodes of a cluster, and the user that asks them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::origin) struct Asked {
    /// Host and port of each, in the order of the Dataset.
    pub(super) name_nodes: Vec<(String, u16)>,
    pub(super) user: String,
}

/// A directory of HDFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    asked: Asked,
    /// The URI without what options say.
    uri: String,
    /// Absolute, without a slash at its end: the root is empty.
    directory: String,
    /// Whether the URI names a name service.
    is_service: bool,
}

impl Place {
    /// The place of a URI after its scheme. The error says what is wrong with it.
    pub(in crate::origin) fn parse(rest: &str, options: Option<&OriginOptions>) -> Result<Self, String> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains(['?', '#', '\0']) {
            return Err("has a \"?\" or \"#\", which is not allowed".to_owned());
        }
        if path.split('/').any(|segment| segment == "..") {
            return Err("has a segment \"..\", which is not allowed".to_owned());
        }
        let authority = authority.to_ascii_lowercase();
        let services = options.map_or(&[][..], |options| &options.name_nodes);
        if services.len() > MOST_NAME_NODES {
            return Err(format!("has more than {MOST_NAME_NODES} options.nameNodes"));
        }
        let wrong = |given: &str| {
            format!("names no name node by \"{}\": HOST[:PORT] is allowed", crate::origin::shown(given))
        };
        let named = address(&authority).ok_or_else(|| wrong(&authority))?;
        let is_service = !services.is_empty();
        if is_service && authority.contains(':') {
            return Err(
                "has a port, and a name service, whose options.nameNodes are given, has none".to_owned()
            );
        }
        let name_nodes: Vec<_> = services
            .iter()
            .map(|given| address(&given.to_ascii_lowercase()).ok_or_else(|| wrong(given)))
            .collect::<Result<_, _>>()?;
        let user = options.and_then(|options| options.user.as_deref()).unwrap_or(USER);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if user.is_empty() || !user.chars().all(plain) {
            return Err("has an options.user that is not of letters, digits, ., _ and - only".to_owned());
        }
        let segments = path.split('/').filter(|segment| !matches!(*segment, "" | "."));
        let directory: String = segments.flat_map(|segment| ["/", segment]).collect();
        let cluster = if is_service { authority } else { format!("{}:{}", named.0, named.1) };
        Ok(Self {
            uri: format!("hdfs://{cluster}{directory}"),
            asked: Asked {
                name_nodes: if is_service { name_nodes } else { vec![named] },
                user: user.to_owned(),
            },
            directory,
            is_service,
        })
    }

    /// The one spelling of this place. The name nodes are part of it, since names of services are
    /// only their Datasets' own; so is the user, since what one may read another may not.
    pub fn uri(&self) -> String {
        let mut uri = self.uri.clone();
        if self.is_service {
            let mut nodes: Vec<_> =
                self.asked.name_nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            nodes.sort();
            uri.push_str(&format!("?nameNodes={}", nodes.join(",")));
        }
        if self.asked.user != USER {
            uri.push_str(&format!("{}user={}", if self.is_service { '&' } else { '?' }, self.asked.user));
        }
        uri
    }

    pub(in crate::origin) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The whole path of what is called `below` in the directory.
    pub(super) fn path(&self, below: &str) -> String {
        if below.is_empty() && self.directory.is_empty() {
            return "/".to_owned();
        }
        let below = below.trim_end_matches('/');
        if below.is_empty() { self.directory.clone() } else { format!("{}/{below}", self.directory) }
    }

    /// For sentences: what is called `below` in the directory.
    pub(super) fn shown(&self, below: &str) -> String {
        let slash = if below.is_empty() { "" } else { "/" };
        format!("{}{slash}{}", self.uri, crate::origin::shown(below))
    }
}

impl Asked {
    /// Host and port of each name node.
    pub(in crate::origin) fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        self.name_nodes.iter().map(|(host, port)| (host.as_str(), *port))
    }
}

fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (text, PORT),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let ends = |c: char| c.is_ascii_alphanumeric();
    (host.starts_with(ends) && host.ends_with(ends) && host.chars().all(plain))
        .then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place(rest: &str, options: serde_json::Value) -> Result<Place, String> {
        Place::parse(rest, Some(&serde_json::from_value(options).unwrap()))
    }

    #[test]
    fn a_place_has_one_spelling() {
        for (rest, options, uri) in [
            ("NN", json!({}), "hdfs://nn:8020"),
            ("nn:9000/", json!({"user": "hearth"}), "hdfs://nn:9000"),
            ("nn/a//b/./c/", json!({"user": "ann"}), "hdfs://nn:8020/a/b/c?user=ann"),
            ("ns/a", json!({"nameNodes": ["B", "a:9000"]}), "hdfs://ns/a?nameNodes=a:9000,b:8020"),
            ("ns", json!({"nameNodes": ["a"], "user": "ann"}), "hdfs://ns?nameNodes=a:8020&user=ann"),
        ] {
            assert_eq!(place(rest, options).unwrap().uri(), uri);
        }
    }

    #[test]
    fn paths_are_below_the_directory() {
        let root = place("nn", json!({})).unwrap();
        assert_eq!(
            (root.path(""), root.path("a/b"), root.path("a/")),
            ("/".into(), "/a/b".into(), "/a".into())
        );
        let below = place("nn/x/y/", json!({})).unwrap();
        assert_eq!((below.path(""), below.path("a")), ("/x/y".into(), "/x/y/a".into()));
        assert_eq!(
            (below.shown(""), below.shown("a")),
            ("hdfs://nn:8020/x/y".into(), "hdfs://nn:8020/x/y/a".into())
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (rest, options, what) in [
            ("", json!({}), "names no name node by \"\""),
            ("nn:0", json!({}), "names no name node"),
            ("nn:70000", json!({}), "names no name node"),
            ("user@nn", json!({}), "names no name node"),
            ("nn/a?b", json!({}), "has a \"?\""),
            ("nn/../a", json!({}), "has a segment \"..\""),
            ("ns:8020", json!({"nameNodes": ["a"]}), "has a port"),
            ("ns", json!({"nameNodes": ["a", "hdfs://b"]}), "names no name node by \"hdfs://b\""),
            ("ns", json!({"nameNodes": vec!["a"; 9]}), "more than 8 options.nameNodes"),
            ("nn", json!({"user": "ann@REALM"}), "options.user"),
        ] {
            let error = place(rest, options).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
