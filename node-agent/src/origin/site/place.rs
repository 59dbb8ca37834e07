//! Where files of a web server are, and their URLs.

use crate::origin::web::percent::encode;
use reqwest::Url;

/// Files of a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder that all of them are in; its path ends in `/`.
    folder: Url,
    listed: Listed,
}

/// How it is known which files there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// It is one file of the folder.
    File(String),
    /// A file of the folder names them, one a line.
    List(String),
    /// The folder's page links to them, and to the pages of folders below.
    Index,
}

impl Place {
    /// The place of a URL: a folder's page, or a file, which may be a list of others. The
    /// error says what is wrong with the URL.
    pub(in crate::origin) fn parse(url: &str, list: bool) -> Result<Self, &'static str> {
        let url = Url::parse(url).map_err(|_| "is no URL: http(s)://HOST[:PORT]/PATH is allowed")?;
        if !url.has_host() {
            return Err("names no host: http(s)://HOST[:PORT]/PATH is allowed");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user in it, which is not allowed: name a Secret by secretRef");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("has a \"?\" or \"#\", which is not allowed");
        }
        let path = url.path();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let listed = match (name.is_empty(), list) {
            (true, true) => return Err("ends in \"/\", and options.fileList is for the URL of a list"),
            (true, false) => Listed::Index,
            (false, true) => Listed::List(name.clone()),
            (false, false) => Listed::File(name.clone()),
        };
        let mut folder = url.clone();
        folder.set_path(&path[..path.len() - name.len()]);
        Ok(Self { folder, listed })
    }

    /// The one spelling of the URL that was parsed.
    pub fn uri(&self) -> String {
        match &self.listed {
            Listed::File(name) | Listed::List(name) => format!("{}{name}", self.folder),
            Listed::Index => self.folder.to_string(),
        }
    }

    pub(super) fn listed(&self) -> &Listed {
        &self.listed
    }

    pub(in crate::origin) fn folder(&self) -> &Url {
        &self.folder
    }

    /// The folder's URL.
    pub(super) fn base(&self) -> &str {
        self.folder.as_str()
    }

    /// URL of a file, or of a folder's page, by its path in the folder.
    pub(super) fn file(&self, path: &str) -> String {
        let mut url = self.base().to_owned();
        encode(&mut url, path, true);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_folders_or_files() {
        let place = |url| Place::parse(url, false).unwrap();
        assert_eq!(*place("http://h").listed(), Listed::Index);
        assert_eq!(place("http://h").uri(), "http://h/");
        assert_eq!(place("HTTPS://H:443/a b/../c/x.bin").uri(), "https://h/c/x.bin");
        assert_eq!(*place("http://h/c/x.bin").listed(), Listed::File("x.bin".into()));
        assert_eq!(place("http://h/c/x.bin").file("a b%/é"), "http://h/c/a%20b%25/%C3%A9");
        let list = Place::parse("http://h/c/files.txt", true).unwrap();
        assert_eq!((list.base(), list.listed()), ("http://h/c/", &Listed::List("files.txt".into())));
        for wrong in ["http://", "http://u:p@h/", "http://h/?x", "http://h/#x"] {
            assert!(Place::parse(wrong, false).is_err(), "{wrong}");
        }
        assert!(Place::parse("http://h/", true).is_err());
    }
}
